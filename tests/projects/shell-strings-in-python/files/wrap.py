import os
import subprocess

subprocess.run("sort names.txt | uniq > unique.txt", shell=True, check=True)
os.system("cp skel/default.conf active.conf")
n = subprocess.check_output(["wc", "-l"], stdin=open("unique.txt"))
print("unique:", int(n))
print(subprocess.check_output(["head", "-n", "1", "list"], cwd="sub", text=True).strip())
print(open("active.conf").read().strip())
