import json, os, re

RUNS = "runs"
os.makedirs(RUNS, exist_ok=True)
taken = [int(m[1]) for m in (re.match(r"run-(\d+)$", d) for d in os.listdir(RUNS)) if m]
number = max(taken, default=0) + 1
target = f"{RUNS}/run-{number:03d}"
os.mkdir(target)
with open("grid.json") as f:
    grid = json.load(f)
scores = {f"{a}x{b}": a * 10 + b for a in grid["a"] for b in grid["b"]}
with open(target + "/scores.json", "w") as f:
    json.dump(scores, f)
print(target, "best:", max(scores, key=scores.get))
