import csv, json, os
ROOT = os.path.realpath(os.path.join(__file__, os.pardir))
LOADERS = {
    ".csv": lambda f: list(csv.reader(f)),
    ".json": json.load,
    ".txt": lambda f: f.read().split(),
}
for entry in json.load(open(os.path.join(ROOT, "manifest.json")))["files"]:
    p = os.path.join(ROOT, entry["path"])
    with open(p) as f:
        d = LOADERS[os.path.splitext(p)[1]](f)
    print(entry["path"], len(d))
