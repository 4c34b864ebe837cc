def show():
    print("long")
