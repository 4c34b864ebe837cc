cols = (("height.tsv", 1), ("weight.tsv", 1), ("age.tsv", 2))
table = {}
for i, (fname, col) in enumerate(cols):
    with open(fname) as f:
        for line in f:
            parts = line.rstrip().split("\t")
            table.setdefault(parts[0], [""] * len(cols))[i] = parts[col]
heads = []
for stem, ext in zip(("labels", "units"), (".en", ".si")):
    heads.append(open(stem + ext).read().split())
for h in heads:
    print("\t".join(h))
for k in sorted(table):
    print(k, *table[k], sep="\t")
