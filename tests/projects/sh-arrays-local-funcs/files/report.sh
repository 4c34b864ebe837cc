#!/usr/bin/env bash
set -euo pipefail
readonly BASEDIR=db
tables=(users groups hosts)

count() {
    local table=$1 file
    file="$BASEDIR/${table}.lst"
    [[ -r $file ]] || { echo "no $file" >&2; return 1; }
    grep -vc '^#' "$file"
}

for t in "${tables[@]}"; do
    printf '%-8s %3d\n' "$t" "$(count "$t")"
done | tee summary.txt
