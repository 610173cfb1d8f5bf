"""Writes a C source that holds a file: embed.py INPUT OUTPUT HEADER SYMBOL."""

import sys
from pathlib import Path

source, target, header, symbol = sys.argv[1:]
data = Path(source).read_bytes()
with open(target, "w") as out:
    out.write(f'#include "{header}"\n\nconst char {symbol}[] = {{\n')
    for i in range(0, len(data), 24):
        out.write("    " + ", ".join(str(b) for b in data[i : i + 24]) + ",\n")
    out.write(f"    0}};\nconst size_t {symbol}_len = {len(data)};\n")
