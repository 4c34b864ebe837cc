MONTHS="jan feb mar"
sum=0
for m in $MONTHS; do
  [ -e "acc/$m.tsv" ] || continue
  s=$(awk '{ t += $2 } END { print t }' "acc/$m.tsv")
  sum=$((sum + s))
  echo "$m $s"
done
echo "sum $sum"
