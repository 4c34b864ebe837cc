STOP = {"the", "of", "and", "a", "to", "in", "that", "we"}
