#!/usr/bin/env python3
# -*- coding: utf-8 -*-
# mean altitude per canton, homework 3
import csv
import os

HERE = os.path.dirname(os.path.abspath(__file__))

def read_stations():
    path = os.path.join(HERE, "data", "stations.csv")
    with open(path, newline="") as fh:
        return list(csv.DictReader(fh))

def main():
    by = {}
    for row in read_stations():
        by.setdefault(row["canton"], []).append(int(row["alt"]))
    with open(os.path.join(HERE, "means.txt"), "w") as out:
        for canton in sorted(by):
            mean = sum(by[canton]) / len(by[canton])
            print(f"{canton} {mean:.1f}")
            out.write("%s\t%.1f\n" % (canton, mean))

if __name__ == "__main__":
    main()
