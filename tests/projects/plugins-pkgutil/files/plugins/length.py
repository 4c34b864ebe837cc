from plugins_config import MAX

def check(text):
    return [f"{len(l)} wide" for l in text.splitlines() if len(l) > MAX]
