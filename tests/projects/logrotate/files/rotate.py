import os
LOG, KEEP = "app.log", 2
for i in range(KEEP - 1, -1, -1):
    src = LOG if i == 0 else "%s.%d" % (LOG, i)
    dst = "%s.%d" % (LOG, i + 1)
    if os.path.exists(src):
        os.rename(src, dst)
        print(src, "->", dst)
open(LOG, "w").close()
