#!/bin/bash
FILES=("names of staff.txt" "room list.txt")
paste -d, "${FILES[@]}" > table.csv
for m in data/{jan,feb}.txt; do
    [[ -f $m ]] && echo "$(basename "$m" .txt): $(paste -sd+ "$m" | bc 2>/dev/null || awk '{s+=$1} END {print s}' "$m")"
done
join <(sort data/jan.txt) <(sort data/feb.txt)
cat table.csv
