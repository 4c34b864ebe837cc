import importlib
import os

for day in range(1, 26):
    try:
        mod = importlib.import_module("solutions.day%d" % day)
    except ModuleNotFoundError:
        continue
    with open(os.path.join("input", "%02d.txt" % day)) as f:
        data = f.read()
    for part in ("part1", "part2"):
        fn = getattr(mod, part, None)
        if fn:
            print("day", day, part, fn(data))
