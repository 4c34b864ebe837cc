import dbm.dumb, sys
with dbm.dumb.open("seen", "c") as db:
    for line in open(sys.argv[1]):
        key = line.split()[0]
        if key.encode() in db.keys():
            print("dup", key)
        else:
            db[key] = "1"
            print("new", key)
    print(len(db.keys()))
