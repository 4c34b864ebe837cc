import sys
from normal import norm
words = [norm(w) for w in open(sys.argv[1]).read().split()]
if "-o" in sys.argv:
    open(sys.argv[sys.argv.index("-o") + 1], "w").write(" ".join(words))
else:
    for w in words:
        print(w)
