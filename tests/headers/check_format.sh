#!/bin/sh
# usage: check_format.sh ROOT. Skipped (77) without the pinned tools or outside a git checkout.
[ -x "$1/.venv/bin/clang-format" ] && [ -x "$1/.venv/bin/ruff" ] || { echo "no clang-format and ruff in .venv"; exit 77; }
git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || { echo "not a git checkout"; exit 77; }
exec "$1/scripts/format" --check
