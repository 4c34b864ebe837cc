class Store:
    def __init__(self, path):
        self.d = dict(l.rstrip("\n").split("\t") for l in open(path))

    def get(self, k):
        return self.d.get(k)
