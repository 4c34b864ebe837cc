def parse(d):
    return {(x, y) for y, l in enumerate(d.splitlines()) for x, c in enumerate(l) if c == "#"}
