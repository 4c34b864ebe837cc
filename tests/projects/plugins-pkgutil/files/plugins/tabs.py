def check(text):
    for n, line in enumerate(text.splitlines(), 1):
        if "\t" in line:
            yield f"line {n} has a tab"
