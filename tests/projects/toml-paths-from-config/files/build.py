import tomllib
from pathlib import Path

CONFIG = Path("conf/site.toml")

with CONFIG.open("rb") as f:
    site = tomllib.load(f)

parts = []
for part in site["page"]["parts"]:
    parts.append((CONFIG.parent / part).read_text().rstrip())
out = Path(site["page"]["out"])
out.parent.mkdir(exist_ok=True)
out.write_text(f"{site['title']}\n\n" + "\n\n".join(parts) + "\n")
print(out, out.stat().st_size)
