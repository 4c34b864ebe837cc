import sys

month = sys.argv[1]
total = sum(int(l.split(",")[1]) for l in open("ledger.csv") if l.startswith(month))
try:
    with open("closed/" + month + ".txt", "x") as f:
        f.write(f"{total}\n")
except FileExistsError:
    print(month, "is closed already with", open(f"closed/{month}.txt").read().strip())
    sys.exit(3)
print(month, total)
