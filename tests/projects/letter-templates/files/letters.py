import csv, sys
from pathlib import Path
from string import Template

TEMPLATES = Path("templates")
OUT = Path("letters")

def template(kind):
    return Template((TEMPLATES / (kind + ".txt")).read_text())

OUT.mkdir(exist_ok=True)
with open(sys.argv[1]) as f:
    for row in csv.DictReader(f):
        text = template(row["kind"]).substitute(name=row["name"], sign=template("_sign").substitute())
        (OUT / f"{row['name'].lower()}.txt").write_text(text)
        print(row["name"], len(text))
