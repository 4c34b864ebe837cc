import json
import pathlib

def load(path):
    path = pathlib.Path(path)
    conf = json.loads(path.read_text())
    merged = {}
    for inc in conf.pop("include", []):
        merged.update(load(path.parent / inc))
    merged.update(conf)
    return merged

for k, v in sorted(load("main.json").items()):
    print(f"{k}={v}")
