"""The command `dtrnet-train`.

    dtrnet-train tokenizer TEXT... --out FILE           a SentencePiece tokenizer
    dtrnet-train prepare TEXT... --out FILE             a token file
    dtrnet-train run CONFIG --out DIR [KEY=VALUE...]    trains; the same command goes on where it stopped
    dtrnet-train evaluate DIR TOKENS                    held-out loss of a checkpoint
    dtrnet-train check DIR --server URL                 logprobs and decisions in PyTorch against a server
    dtrnet-train flops DIR|CONFIG                       arithmetic by part and length
    dtrnet-train routing DIR TOKENS                     which tokens are routed where

Several GPUs: torchrun --nproc-per-node 4 -m dtrnet_train run CONFIG --out DIR. Each command has --help.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from dtrnet_train.errors import UserError


def tokenizer(arguments: list[str]) -> None:
    """`dtrnet-train tokenizer`."""
    from dtrnet_train import prepare

    parser = argparse.ArgumentParser("dtrnet-train tokenizer")
    parser.add_argument("texts", nargs="+", type=Path, help="text files, JSONL files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="the tokenizer.model to write")
    parser.add_argument("--vocab-size", type=int, default=16384)
    parser.add_argument("--key", default="text", help="where a JSONL line has its text (%(default)s)")
    args = parser.parse_args(arguments)
    prepare.train_tokenizer(args.texts, args.out, args.vocab_size, args.key)


def prepare_tokens(arguments: list[str]) -> None:
    """`dtrnet-train prepare`."""
    from dtrnet_train import prepare

    parser = argparse.ArgumentParser("dtrnet-train prepare")
    parser.add_argument("texts", nargs="+", type=Path, help="text files, JSONL files, or folders of them")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.model")
    parser.add_argument("--out", type=Path, required=True, help="the token file to write, NAME.bin")
    parser.add_argument("--valid", type=Path, help="a second token file for held-out documents")
    parser.add_argument("--valid-every", type=int, default=100, help="every how many documents one is held out (%(default)s)")
    parser.add_argument("--key", default="text", help="where a JSONL line has its text (%(default)s)")
    args = parser.parse_args(arguments)
    print(json.dumps(prepare.encode(args.texts, args.tokenizer, args.out, args.key, args.valid, args.valid_every), indent=1))


def run(arguments: list[str]) -> None:
    """`dtrnet-train run`."""
    from dtrnet_train import config

    parser = argparse.ArgumentParser("dtrnet-train run")
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/train/26m-bilayer.yaml")
    parser.add_argument("settings", nargs="*", metavar="SECTION.KEY=VALUE", help="settings in place of the file's")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--tensorboard", action="store_true", help="curves under DIR/tensorboard")
    args = parser.parse_intermixed_args(arguments)  # settings may stand before and after options
    settings = config.read(args.config, args.settings)
    from dtrnet_train import parallel  # torch takes seconds to import; a wrong config is told before
    from dtrnet_train.trainer import Trainer

    world = parallel.begin(args.device)
    try:
        trainer = Trainer(settings, args.out, world)
        if args.tensorboard and world.rank == 0:
            trainer.progress.tensorboard(args.out)
        if trainer.resume():
            trainer.progress.say(f"goes on at step {trainer.step} of {trainer.steps}")
        trainer.run()
    finally:
        parallel.end()


def evaluate(arguments: list[str]) -> None:
    """`dtrnet-train evaluate`."""
    import torch

    from dtrnet_train import parallel
    from dtrnet_train.evaluate import Pieces, by_document
    from dtrnet_train.model import load

    parser = argparse.ArgumentParser("dtrnet-train evaluate")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokens", type=Path, help="a token file")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=1, help="windows at once (%(default)s)")
    parser.add_argument("--documents", type=int, default=0, help="only the first documents")
    parser.add_argument("--bf16", action="store_true", help="activations in bf16, as in training")
    args = parser.parse_args(arguments)
    world = parallel.begin()
    model = load(args.checkpoint, torch.bfloat16 if args.bf16 else torch.float32).to(world.device)
    pieces = Pieces(args.tokens, args.length, model.shape.bos_token_id, model.shape.vocab_size, args.documents)
    held = by_document(model, pieces, args.windows, world)
    shares = {"execute": [round(x, 4) for x in held.execute], "attend": [round(x, 4) for x in held.attend]}
    print(json.dumps({"loss": held.loss, "tokens": int(held.counts.sum()), "documents": len(held.counts), **shares}))


def _later(module: str) -> Callable[[list[str]], int | None]:
    """The command of a module that is imported when it is called."""
    return lambda arguments: importlib.import_module(f"dtrnet_train.{module}").main(arguments)


COMMANDS = {
    "tokenizer": tokenizer,
    "prepare": prepare_tokens,
    "run": run,
    "evaluate": evaluate,
    "check": _later("check"),
    "flops": _later("account"),
    "routing": _later("analysis"),
}


def main() -> int:
    """Hands over to a command; what a person got wrong is one line."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        print(f"dtrnet-train: there is no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](arguments) or 0
    except UserError as error:
        print(f"dtrnet-train {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
