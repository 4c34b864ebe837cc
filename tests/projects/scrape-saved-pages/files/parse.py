import csv
import glob
import re
from html.parser import HTMLParser

class Prices(HTMLParser):
    def __init__(self):
        super().__init__()
        self.want = None
        self.item = {}
    def handle_starttag(self, tag, attrs):
        cls = dict(attrs).get("class")
        if cls in ("name", "price"):
            self.want = cls
    def handle_data(self, data):
        if self.want:
            self.item[self.want] = data.strip()
            self.want = None

rows = []
for page in sorted(glob.glob("pages/*.html")):
    p = Prices()
    p.feed(open(page, encoding="utf8").read())
    rows.append([p.item["name"], re.sub(r"[^\d.]", "", p.item["price"])])

with open("prices.csv", "w", newline="") as f:
    csv.writer(f).writerows(rows)
print("%d items, %.2f in total" % (len(rows), sum(float(r[1]) for r in rows)))
