#!/bin/sh
week=$(cat .week 2>/dev/null || echo 0)
week=$((week + 1))
[ -f report.txt ] && mv report.txt report.1.txt
rm -f ./*.tmp
grep -c '^x' tasks.txt > report.txt || true
echo "$week,$(cat report.txt)" >> history.csv
echo "$week" > .week
tail -2 history.csv
