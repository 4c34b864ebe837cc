from handlers.escape import esc

def render(rows):
    return "".join(",".join(esc(c) for c in r) + "\n" for r in rows)
