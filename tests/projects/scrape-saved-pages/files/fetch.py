import urllib.request
for i in range(1, 4):
    urllib.request.urlretrieve(f"http://shop.invalid/p/{i}", f"pages/p{i}.html")
