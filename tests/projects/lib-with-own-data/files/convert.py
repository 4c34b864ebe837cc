import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
import measure

value, unit = float(sys.argv[1]), sys.argv[2]
print(f"{value:g} {unit} = {measure.to_metres(value, unit):g} m")
