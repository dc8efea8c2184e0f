import sys
for _ in range(int(sys.argv[1])):
    rows = [[str(i), i * 1.5, {"n": i}] for i in range(60000)]
    text = "".join(row[0] for row in rows)
    block = bytearray(8 << 20)
    del rows, text, block
