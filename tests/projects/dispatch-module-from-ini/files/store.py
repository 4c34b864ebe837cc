import configparser
import sys

config = configparser.ConfigParser()
config.read("config.ini")
modname = config.get("store", "backend", fallback="backends.memory")
backend = __import__(modname, fromlist=["Store"])
store = backend.Store(**dict(config["options"])) if config.has_section("options") else backend.Store()
print(getattr(store, sys.argv[1])(*sys.argv[2:]))
