import importlib

handler = importlib.import_module("handlers.csvout")
text = handler.render([("a", 1), ("b", 2)])
with open("dump.csv", "w") as f:
    f.write(text)
print(text, end="")
