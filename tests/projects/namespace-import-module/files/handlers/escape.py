def esc(x):
    return '"' + str(x) + '"'
