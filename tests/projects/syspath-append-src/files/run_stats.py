import sys
sys.path.append("src")

from textstats import top

def main():
    if "--long" in sys.argv:
        import longform
        longform.show()
    text = open(sys.argv[1]).read()
    for w, n in top(text, 3):
        print(w, n)

main()
