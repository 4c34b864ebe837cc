#!/usr/bin/python3
import os
i = 1
book = open("book.txt", "w")
while os.path.exists("chapters/ch%02d.txt" % i):
    text = open("chapters/ch%02d.txt" % i).read()
    book.write("CHAPTER %d\n\n%s\n" % (i, text))
    i += 1
book.close()
print("chapters: %d" % (i - 1))
