import os
import settings

sizes = {}
with os.scandir(settings.MAILBOX) as entries:
    for e in entries:
        if e.is_file() and not e.name.startswith("."):
            with open(e.path) as f:
                sender = f.readline().split(":", 1)[1].strip()
            sizes[sender] = sizes.get(sender, 0) + 1
for s in sorted(sizes):
    print(s, sizes[s])
