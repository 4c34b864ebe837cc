import itertools, os
text = open("in.txt").read().upper()
def free(stem, ext):
    yield stem + ext
    for i in itertools.count(1):
        yield f"{stem}-{i}{ext}"
for name in free("report", ".txt"):
    if not os.path.exists(name):
        break
open(name, "w").write(text)
print(name)
