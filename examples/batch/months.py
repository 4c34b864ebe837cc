"""Writes the mean temperature of each month of one weather station: months.py STATION.csv"""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

station = Path(sys.argv[1])
months = defaultdict(list)
with station.open(newline="") as lines:
    for row in csv.DictReader(lines):
        months[row["date"][:7]].append(float(row["celsius"]))

with open("months.csv", "w", newline="") as table:
    rows = csv.writer(table)
    rows.writerow(["station", "month", "celsius"])
    rows.writerows([station.stem, month, f"{fmean(values):.1f}"] for month, values in sorted(months.items()))
print(f"{station.stem}: {len(months)} months")
