import json
from pathlib import Path

UNITS = json.loads(Path(__file__).with_name("units.json").read_text())

def to_metres(value, unit):
    try:
        return value * UNITS[unit]
    except KeyError:
        raise SystemExit(f"unknown unit {unit}, have: {', '.join(sorted(UNITS))}")
