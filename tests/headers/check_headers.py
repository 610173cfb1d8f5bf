#!/usr/bin/env python3
"""Compiles each header of the C folders alone, so that a header includes what its declarations need.

usage: check_headers.py ROOT COMPILER [ARGUMENT ...]
"""

import pathlib
import subprocess
import sys

FOLDERS = ["common", "kernels", "tokenizer", "engine", "server"]
# Included in the middle of the one kind of file that they are made for; not meant to stand alone.
PARTS = {
    "kernels/cpu/attention_bf16.h",
    "kernels/cpu/attention_bf16_pack.h",
    "kernels/cpu/attention_vector.h",
    "kernels/cpu/panel_vector.h",
    "kernels/cpu/panel_finish.h",
    "kernels/cpu/simd.h",
}


def main() -> int:
    root, compiler = pathlib.Path(sys.argv[1]), sys.argv[2:]
    bad = 0
    headers = [h for f in FOLDERS for h in sorted((root / f).rglob("*.h")) if h.relative_to(root).as_posix() not in PARTS]
    for header in headers:
        name = header.relative_to(root).as_posix()
        source = f'#include "{name}"\n#include "{name}"\nextern int unused;\n'
        done = subprocess.run(
            [*compiler, "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-fsyntax-only", f"-I{root}", "-x", "c", "-"],
            input=source,
            text=True,
            capture_output=True,
        )
        if done.returncode:
            bad += 1
            print(f"{name} does not compile alone:\n{done.stderr}")
    print(f"{len(headers)} headers, {bad} bad")
    return 1 if bad or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
