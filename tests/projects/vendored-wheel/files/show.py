import sys
sys.path.insert(0, "wheels/tinytable-0.2-py3-none-any.whl")
from tinytable import render

with open("scores.csv") as f:
    print(render([line.strip().split(",") for line in f]))
