"""`dtrnet-train flops`: the arithmetic of a model by part and length, as a table and a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dtrnet_train import config, flops, pictures, tables
from dtrnet_train.errors import fail, require
from dtrnet_train.model import load_shape
from dtrnet_train.shape import Shape


def shape_of(path: Path) -> Shape:
    """The shape of a checkpoint directory or of a YAML config."""
    if path.is_dir():
        return load_shape(path)
    return config.read(path, []).model


def _measured(path: Path, shape: Shape) -> tuple[list[float], list[float]]:
    """(execute, attend) by layer from what `dtrnet-train routing` wrote."""
    try:
        layers = json.loads(path.read_text())["layers"]
    except (OSError, ValueError, KeyError):
        fail(f"{path}: not a routing.json of `dtrnet-train routing`")
    require(len(layers) == shape.num_hidden_layers, f"{path}: has {len(layers)} layers, the model {shape.num_hidden_layers}")
    return [layer["execute"] for layer in layers], [layer["attend"] for layer in layers]


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be 0 to 1, not {text}")
    return value


def _lengths(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"lengths are at least 1, not {text}")
    return values


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("dtrnet-train flops", description=__doc__)
    parser.add_argument("model", type=Path, help="a checkpoint directory or a YAML config")
    parser.add_argument("--lengths", type=_lengths, default=[512, 2048, 8192, 20480], help="sequence lengths (512,2048,8192,20480)")
    parser.add_argument(
        "--attend", type=_share, default=0.1, help="share of the executed tokens that attend, in every routed layer (%(default)s)"
    )
    parser.add_argument("--execute", type=_share, default=0.6, help="share of tokens that execute a layer they may skip (%(default)s)")
    parser.add_argument(
        "--pairs", choices=["causal", "full"], default="causal", help="keys that a query counts: those before it, or all (%(default)s)"
    )
    parser.add_argument("--routing", type=Path, help="a routing.json: measured shares by layer in place of the two above")
    parser.add_argument("--json", action="store_true", help="numbers for programs")
    parser.add_argument("--picture", type=Path, help="a PNG to draw; needs matplotlib")
    return parser.parse_args(arguments)


def _text(rows: list[dict[str, Any]]) -> str:
    head = ["length", *(f"{part}, M" for part in flops.PARTS), "a token, M", "of dense", "KV of dense"]
    body = [
        [f"{r['length']:,}", *(f"{r[p] / 1e6:.2f}" for p in (*flops.PARTS, "total")), f"{r['of_dense']:.1%}", f"{r['kv_of_dense']:.1%}"]
        for r in rows
    ]
    return tables.markdown(head, body)


def main(arguments: list[str]) -> int:
    """Prints the table."""
    args = _arguments(arguments)
    shape = shape_of(args.model)
    execute, attend = _measured(args.routing, shape) if args.routing else flops.shares_at(shape, args.attend, args.execute)
    rows = flops.table(shape, args.lengths, execute, attend, args.pairs == "full")
    print(json.dumps(rows, indent=1) if args.json else _text(rows))
    if args.picture:
        pictures.flops(rows, args.picture)
    return 0
