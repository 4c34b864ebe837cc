def norm(w):
    return w.strip(".,!?").lower()
