from .grid import parse

def part1(d):
    return len(parse(d))
