"""Writes what the job finds around it: which system, which Python, how many processes."""

import json
import platform
from pathlib import Path

release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
about = {
    "system": release["PRETTY_NAME"].strip('"'),
    "python": platform.python_version(),
    "processes": sum(path.name.isdigit() for path in Path("/proc").iterdir()),
}
Path("about.json").write_text(json.dumps(about, indent=2) + "\n")
print(f"Python {about['python']} on {about['system']}")
