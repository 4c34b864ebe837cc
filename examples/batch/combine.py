"""Puts the tables of all stations into one: combine.py TABLE.csv..."""

import csv
import sys

rows = []
for name in sys.argv[1:]:
    with open(name, newline="") as table:
        rows += csv.DictReader(table)
rows.sort(key=lambda row: (row["month"], row["station"]))

with open("all.csv", "w", newline="") as table:
    writer = csv.DictWriter(table, ["month", "station", "celsius"])
    writer.writeheader()
    writer.writerows(rows)
print(f"{len(rows)} rows from {len(sys.argv) - 1} stations")
