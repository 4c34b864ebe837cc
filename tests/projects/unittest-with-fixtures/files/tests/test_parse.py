import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "src"))
from parse import parse


class TestParse(unittest.TestCase):
    def test_fixtures(self):
        with open(os.path.join(HERE, "fixtures", "cases.json")) as f:
            cases = json.load(f)
        for case in cases:
            self.assertEqual(parse(case["in"]), tuple(case["out"]))
        with open(os.path.join(HERE, "ran.txt"), "w") as f:
            f.write(f"{len(cases)} cases\n")


if __name__ == "__main__":
    unittest.main()
