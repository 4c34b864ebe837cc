import os

PLAYLIST = "playlist.m3u"
base = os.path.dirname(PLAYLIST)
total = 0
for entry in open(PLAYLIST):
    entry = entry.strip()
    if not entry or entry.startswith("#"):
        continue
    with open(os.path.join(base, entry)) as song:
        notes = sum(len(line.split()) for line in song if ":" not in line)
    print(entry, notes)
    total += notes
print(total)
