#!/bin/bash
DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
RULES="$DIR/etc/rules"
DATA=data
for day in "$@"; do
    echo "$day: $(grep -c -f "$RULES" "${DATA}/$day.txt")"
done
