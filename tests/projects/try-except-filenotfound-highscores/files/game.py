import json, sys

class Game:
    SCORES = "scores.json"
    def __init__(self, level=1):
        try:
            with open(self.SCORES) as f:
                self.scores = json.load(f)
        except (FileNotFoundError, ValueError):
            self.scores = []
        try:
            self.map = open("levels/{}.map".format(level)).read().splitlines()
        except OSError:
            self.map = ["..", ".."]

    def play(self, points):
        points += sum(r.count("*") for r in self.map)
        self.scores = sorted(self.scores + [points], reverse=True)[:3]
        with open(self.SCORES, "w") as f:
            json.dump(self.scores, f)

g = Game()
g.play(int(sys.argv[2]))
print(g.scores)
