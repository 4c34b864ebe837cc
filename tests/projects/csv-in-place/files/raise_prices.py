import csv, os, sys

path = "catalogue.csv"
tmp = path + ".tmp"
percent = int(sys.argv[1])
with open(path, newline="") as src, open(tmp, "w", newline="") as dst:
    reader = csv.DictReader(src, delimiter=";")
    writer = csv.DictWriter(dst, reader.fieldnames, delimiter=";", lineterminator="\n")
    writer.writeheader()
    for row in reader:
        row["price"] = "%.2f" % (float(row["price"]) * (100 + percent) / 100)
        print(row["sku"], row["price"])
        writer.writerow(row)
os.replace(tmp, path)
