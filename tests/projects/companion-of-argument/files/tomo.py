import json
import os
import sys
from pathlib import Path

data = Path(sys.argv[1])
meta = json.loads(data.with_suffix(".json").read_text())
mask_file = os.path.splitext(sys.argv[1])[0] + ".mask"
mask = None
if os.path.exists(mask_file):
    mask = open(mask_file).read().split()
values = [int(v) * meta["gain"] for v in data.read_text().split()]
if mask:
    values = [v for v, m in zip(values, mask) if m == "1"]
print(meta["sample"], sum(values), "masked" if mask else "unmasked")
