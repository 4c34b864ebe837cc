import importlib, pkgutil, sys
import plugins

text = open(sys.argv[1]).read()
problems = 0
for info in sorted(pkgutil.iter_modules(plugins.__path__), key=lambda i: i.name):
    mod = importlib.import_module("plugins." + info.name)
    for message in mod.check(text):
        print(f"{info.name}: {message}")
        problems += 1
print(problems, "problems")
