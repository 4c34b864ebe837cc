"""Moving average of the sensor's readings."""
import argparse
import configparser
import csv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-c", "--config", default="settings.ini", help="settings (%(default)s)")
parser.add_argument("-w", "--window", type=int)
parser.add_argument("-o", "--output", default="smoothed.csv")
args = parser.parse_args()

cfg = configparser.ConfigParser()
with open(args.config) as f:
    cfg.read_file(f)
window = args.window or cfg.getint("smooth", "window")
digits = cfg.getint("smooth", "digits", fallback=1)

with open(cfg["input"]["file"]) as f:
    values = [float(r[cfg["input"]["column"]]) for r in csv.DictReader(f)]
result = [round(sum(values[i:i + window]) / window, digits) for i in range(len(values) - window + 1)]
with open(args.output, "w") as f:
    f.write("mean\n" + "".join(f"{v}\n" for v in result))
print(len(result), "means, the last is", result[-1])
