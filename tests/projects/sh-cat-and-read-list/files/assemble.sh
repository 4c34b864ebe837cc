#!/bin/sh
n=0
: > body.tmp
while read -r name title; do
    echo "<h2>$title</h2>" >> body.tmp
    cat "fragments/$name.html" >> body.tmp
    n=$((n + 1))
done < list.txt
cat header.html body.tmp footer.html > index.html
rm body.tmp
echo "$n fragments, $(wc -l < index.html | tr -d ' ') lines"
