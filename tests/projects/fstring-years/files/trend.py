last = None
for year in range(2019, 2023):
    with open(f"data/{year}.csv") as f:
        n = sum(int(line.split(",")[1]) for line in f)
    print(year, n, "" if last is None else f"{n - last:+d}")
    last = n
