import argparse
ap = argparse.ArgumentParser(fromfile_prefix_chars="@")
ap.add_argument("--input", type=argparse.FileType("r"))
ap.add_argument("--table")
ap.add_argument("--upper", action="store_true")
a = ap.parse_args()
t = dict(l.split() for l in open(a.table))
for l in a.input:
    s = t.get(l.strip(), "?")
    print(s.upper() if a.upper else s)
