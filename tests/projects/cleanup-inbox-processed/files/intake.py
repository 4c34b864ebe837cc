import json, os
from pathlib import Path
with open("ledger.jsonl", "a") as led:
    for p in sorted(Path("inbox").iterdir()):
        d = json.loads(p.read_text())
        led.write(json.dumps(d) + "\n")
        p.unlink()
        print(p.name, d["sum"])
print(len(open("ledger.jsonl").readlines()))
