import csv, json, os

ENV = os.getenv("APP_ENV") or "dev"

def merge(a, b):
    out = dict(a)
    for k, v in b.items():
        out[k] = merge(out[k], v) if isinstance(v, dict) and isinstance(out.get(k), dict) else v
    return out

cfg = {}
for layer in ("base", ENV, "local"):
    fn = f"config/{layer}.json"
    if os.path.isfile(fn):
        cfg = merge(cfg, json.load(open(fn)))

src = os.path.join(cfg["source"]["dir"], cfg["source"]["file"])
rows = [r for r in csv.DictReader(open(src)) if float(r["amount"]) >= cfg["min"]]
os.makedirs(cfg["out"], exist_ok=True)
with open(cfg["out"] + "/orders.jsonl", "w") as f:
    for r in rows:
        print(json.dumps(r), file=f)
print(ENV, len(rows), "rows")
