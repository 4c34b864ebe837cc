import os
os.chdir(os.path.dirname(os.path.abspath(__file__)))

w = [int(x) for x in open("weights.txt")]
x = [int(x) for x in open("in.txt")]
r = sum(a * b for a, b in zip(w, x))
with open("out.txt", "w") as f:
    f.write("%d\n" % r)
print(r)
