#!/bin/sh
cd "${0%/*}" || exit 1
last=$(cat stamp)
cp ledger ledger.bak
awk -v l="$last" '$1 > l { $3 = "done" } { print }' ledger.bak > ledger.tmp && mv ledger.tmp ledger
awk '{ if ($1 > m) m = $1 } END { print m }' ledger > stamp
cat ledger stamp
