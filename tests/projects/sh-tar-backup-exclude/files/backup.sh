#!/bin/bash
set -e
DIRS="documents config"
OUT=/tmp/backup-$$.tgz
trap 'rm -f "$OUT"' EXIT
tar czf "$OUT" --exclude-from=exclude.lst $DIRS
tar tzf "$OUT" | grep -v '/$' | LC_ALL=C sort | tee contents.txt
echo "$(wc -l < contents.txt) files" >> backup.log
