from pathlib import Path
import sys

BASE = Path(__file__).resolve().parent
month = sys.argv[1]
lines = (BASE / "data" / f"{month}.txt").read_text().splitlines()
total = sum(float(l.split()[-1]) for l in lines if l and not l.startswith("#"))
title = (BASE / "title").read_text().strip()
Path("report.txt").write_text(f"{title}: {month}\n{total:.2f}\n")
print(title, month, f"{total:.2f}")
