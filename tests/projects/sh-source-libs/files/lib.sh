say() { printf '* %s\n' "$*"; }
banner() { cat banner.txt; }
