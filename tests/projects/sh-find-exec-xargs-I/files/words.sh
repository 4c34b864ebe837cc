find notes -type f -name '*.txt' -print0 | LC_ALL=C sort -z |
  xargs -0 -I{} sh -c 'echo "{}: $(tr " " "\n" < "{}" | grep -vxFf stop.txt | wc -l)"'
