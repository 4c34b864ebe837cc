from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Config:
    params: str = "params.json"
    start: Path = Path("initial/state.txt")
    out: str = "trajectory.txt"
    steps: int = 4
    extra: list[str] = field(default_factory=list)


def run(cfg: Config) -> None:
    p = json.load(open(cfg.params))
    x, y = map(float, cfg.start.read_text().split())
    lines = []
    for _ in range(cfg.steps):
        x, y = x + p["a"] * x - p["b"] * x * y, y - p["c"] * y + p["d"] * x * y
        lines.append(f"{x:.3f} {y:.3f}")
    Path(cfg.out).write_text("\n".join(lines) + "\n")
    print(lines[-1])


if __name__ == "__main__":
    run(Config())
