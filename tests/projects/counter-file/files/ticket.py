import sys, os

def next_id():
    try:
        n = int(open(".counter").read())
    except (IOError, ValueError):
        n = 0
    n += 1
    with open(".counter", "w") as f:
        f.write(str(n))
    return n

n = next_id()
os.makedirs("tickets", exist_ok=True)
with open("tickets/%05d.txt" % n, "w") as f:
    f.write(sys.argv[1] + "\n")
print("ticket", n)
