"""Counts the words of some texts, and writes what it found beside itself: words.csv and words.svg.

    python report.py texts/*.txt
    rgrid run report.py texts/*.txt

It knows nothing of rgrid: it reads the files that it is given and writes two, wherever it runs.
"""

import argparse
import collections
import csv
import html
import pathlib
import re
import sys
import time

# Too frequent to say anything about a text.
COMMON = frozenset(
    """a about after all an and any are as at be been before but by can could did do for from had has have he her him his i if in
    into is it its like me more my no not now of on one or our out over she so some than that the their them then there these they
    this to too two up upon us was we were what when where which who will with would you your""".split()
)
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
COLOURS = ("#0f766e", "#b45309", "#4338ca", "#be185d", "#4d7c0f", "#0369a1")


def words_of(text):
    return (word for word in WORD.findall(text.lower()) if word not in COMMON and len(word) > 2)


def write_csv(path, ranking, counts):
    with path.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["word", "total", *counts])
        for word, total in ranking:
            rows.writerow([word, total, *(of_text[word] for of_text in counts.values())])


def write_svg(path, ranking, counts):
    """One bar a word, one coloured part a text."""
    row, left, width, top = 22, 110, 480, 56
    scale = width / max(total for _, total in ranking)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(counts)}
    parts = []
    for i, (name, colour) in enumerate(colours.items()):
        x = left + i * width / len(colours)
        parts.append(f'<rect x="{x:.0f}" y="20" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.0f}" y="30">{html.escape(name)}</text>')
    for i, (word, total) in enumerate(ranking):
        y, x = top + i * row, float(left)
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(word)}</text>')
        for name, of_text in counts.items():
            length = of_text[word] * scale
            if length:
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="16" fill="{colours[name]}"/>')
            x += length
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{total}</text>')
    height = top + len(ranking) * row + 16
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{height}" '
        f'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/>' + "".join(parts) + "</svg>\n",
        encoding="utf-8",
    )


def main():
    parser = argparse.ArgumentParser(description="Count the words of some texts.")
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    parser.add_argument("--top", type=int, default=20, help="how many words to draw (default: 20)")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between paragraphs, to be watched (default: 0.2)")
    args = parser.parse_args()

    counts = {}
    for path in args.texts:
        of_text = counts[path.stem] = collections.Counter()
        paragraphs = path.read_text(encoding="utf-8").strip().split("\n\n")
        for done, paragraph in enumerate(paragraphs, start=1):
            of_text.update(words_of(paragraph))
            print(f"{path}: {done}/{len(paragraphs)} paragraphs, {of_text.total()} words", flush=True)
            time.sleep(args.pause)

    total = sum(counts.values(), collections.Counter())
    if not total:
        sys.exit("error: no words in these texts; give it some prose")
    # Equal counts in alphabetical order, so that the same texts give the same bytes on every machine.
    ranking = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
    write_csv(pathlib.Path("words.csv"), ranking, counts)
    write_svg(pathlib.Path("words.svg"), ranking[: args.top], counts)
    print(f"{total.total()} words, {len(total)} different; most frequent: {', '.join(word for word, _ in ranking[:5])}")
    print("wrote words.csv and words.svg")


if __name__ == "__main__":
    main()
