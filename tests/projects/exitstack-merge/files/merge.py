import heapq
from contextlib import ExitStack
PARTS = ["part_%s.txt" % c for c in "abc"]
with ExitStack() as st:
    ins = [st.enter_context(open(p)) for p in PARTS]
    out = st.enter_context(open("merged.txt", "w"))
    for line in heapq.merge(*ins, key=lambda l: int(l.split()[0])):
        out.write(line)
print(open("merged.txt").read(), end="")
