def part1(d):
    return sum(map(int, d.split()))

def part2(d):
    return max(map(int, d.split()))
