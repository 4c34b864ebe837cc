#!/usr/bin/env bash
SELF=$(readlink -f "${BASH_SOURCE[0]}")
ROOT=${SELF%/*}
: "${LIBDIR:=$ROOT/lib.d}"
for lib in "$LIBDIR"/*.sh; do
    # shellcheck source=/dev/null
    source "$lib"
done
"cmd_${1:-help}"
