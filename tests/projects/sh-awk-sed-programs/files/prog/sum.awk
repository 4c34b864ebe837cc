{ s[$1] += $2 }
END { for (u in s) print u, s[u] }
