import re
from collections import Counter

def top(text, n):
    from stopwords import STOP
    c = Counter(w for w in re.findall(r"[a-z]+", text.lower()) if w not in STOP)
    return sorted(c.items(), key=lambda kv: (-kv[1], kv[0]))[:n]
