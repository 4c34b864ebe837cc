import glob, sys
total = 0
for name in sorted(glob.glob(sys.argv[1])):
    n = sum(sys.argv[2] in line for line in open(name))
    print(name, n)
    total += n
print("total", total)
