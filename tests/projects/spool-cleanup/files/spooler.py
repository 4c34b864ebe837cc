import glob, os
jobs = sorted(glob.glob("spool/*.job"))
with open("done.log", "a") as log:
    for j in jobs:
        what = open(j).read().strip()
        print("running", what)
        log.write(os.path.basename(j) + " " + what + "\n")
        os.unlink(j)
print(len(jobs), "jobs")
