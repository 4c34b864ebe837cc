import json, sys
def room(rid):
    with open("rooms/" + rid + ".json") as f:
        return json.load(f)
here = room("start")
print(here["text"])
for step in sys.argv[1:]:
    here = room(here["exits"][step])
    print(step, "->", here["text"])
