import glob, os, re, sys
bad = 0
for page in sorted(glob.glob("docs/**/*.md", recursive=True)):
    for target in re.findall(r"\]\(([^)#:]+)\)", open(page).read()):
        path = os.path.normpath(os.path.join(os.path.dirname(page), target))
        ok = os.path.exists(path)
        print("ok  " if ok else "DEAD", page, target)
        bad += not ok
sys.exit(3 if bad else 0)
