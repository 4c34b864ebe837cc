#!/bin/bash
find . -path ./archive -prune -o -name '*.log' -print0 | sort -z | xargs -0 grep -c ERROR | tee counts.txt
find . -maxdepth 1 -type f -name '*.log' -exec wc -l {} + | awk '{print $1}'
