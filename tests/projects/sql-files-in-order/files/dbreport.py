import sqlite3
import sys
import pathlib

root = pathlib.Path(__file__).parent
db = sqlite3.connect(":memory:")
for script in sorted((root / "sql").glob("*.sql")):
    db.executescript(script.read_text())
query = (root / "reports" / sys.argv[1]).with_suffix(".sql").read_text()
for row in db.execute(query):
    print("|".join(map(str, row)))
