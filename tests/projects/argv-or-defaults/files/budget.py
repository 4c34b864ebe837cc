import csv, sys
from collections import defaultdict

DEFAULTS = ["jan.csv", "feb.csv"]
names = dict(csv.reader(open("categories.csv")))
tot = defaultdict(float)
for path in sys.argv[1:] or DEFAULTS:
    with open(path, newline="") as f:
        for row in csv.DictReader(f, delimiter=";"):
            tot[names.get(row["cat"], "other")] += float(row["eur"].replace(",", "."))
for k in sorted(tot):
    print(f"{k:<12}{tot[k]:>10.2f}")
