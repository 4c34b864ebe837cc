def parse(line):
    k, _, v = line.partition("=")
    return k.strip(), v.strip()
