#!/bin/bash
sed -f clean.sed "$1" | awk -f prog/sum.awk | sort > sums.txt
awk 'NR==FNR { dep[$1] = $2; next } { print dep[$1], $1, $2 }' departments.txt sums.txt
