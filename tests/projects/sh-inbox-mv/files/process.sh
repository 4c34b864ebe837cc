#!/bin/bash
mkdir -p processed failed
for f in in/*.csv; do
    [ -e "$f" ] || { echo "nothing to do"; exit 0; }
    if [ "$(head -1 "$f")" = "id,qty" ]; then
        total=$(awk -F, 'NR>1 {s+=$2} END {print s+0}' "$f")
        echo "$(basename "$f") $total" >> journal
        mv "$f" processed/
    else
        mv "$f" failed/
    fi
done
cat journal
