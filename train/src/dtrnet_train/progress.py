"""What a run says while it goes on: a line on the terminal, a line of JSON in log.jsonl, TensorBoard if asked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dtrnet_train import flops
from dtrnet_train.control import Control
from dtrnet_train.errors import fail
from dtrnet_train.shape import Shape


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def shares_by_layer(shape: Shape, control: Control, shares: list[float]) -> tuple[list[float], list[float]]:
    """(execute, attend) of every layer from the shares that control keeps by router."""
    execute, attend = [1.0] * shape.num_hidden_layers, [1.0] * shape.num_hidden_layers
    if control.names:
        for name, share in zip(control.names, shares):
            layer, kind = name.split(".")
            (execute if kind == "skip_router" else attend)[int(layer)] = share
    else:
        for layer, share in zip(shape.routed(), shares):
            execute[layer] = share
    return execute, attend


class Progress:
    """Lines of one run; `show` False in all processes but the first."""

    def __init__(
        self, out: Path, shape: Shape, control: Control, steps: int, tokens: int, length: int, peak: float | None, show: bool
    ) -> None:
        self.shape, self.control, self.steps, self.tokens, self.length, self.peak, self.show = (
            shape,
            control,
            steps,
            tokens,
            length,
            peak,
            show,
        )
        self.file = (out / "log.jsonl").open("a", encoding="utf-8") if show else None
        self.board: Any = None
        self.since, self.last, self.rates = time.perf_counter(), 0, []

    def tensorboard(self, out: Path) -> None:
        """Writes curves beside the lines from now on."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            fail("--tensorboard needs the package tensorboard: pip install tensorboard")
        self.board = SummaryWriter(str(out / "tensorboard"))

    def begin(self, step: int) -> None:
        """Time and tokens count from here."""
        self.since, self.last = time.perf_counter(), step

    def step(self, step: int, numbers: dict[str, float]) -> dict[str, Any]:
        """After `step` steps: `numbers` has at least loss, lr and norm. Everything before must have been waited for."""
        now = time.perf_counter()
        rate = self.tokens * (step - self.last) / max(now - self.since, 1e-9)
        self.rates.append(rate)
        self.since, self.last = now, step
        shares = self.control.last_shares()
        execute, attend = shares_by_layer(self.shape, self.control, shares)
        used = flops.training(self.shape, self.length, execute, attend)
        line = {"step": step, **numbers, "tokens": step * self.tokens, "tokens_per_second": rate, "shares": [round(x, 4) for x in shares]}
        if self.peak:
            line["mfu"] = rate * used / self.peak
        line["eta"] = (self.steps - step) * self.tokens / rate
        self.write(line)
        if self.show:
            print(self._text(line), flush=True)
        return line

    def _shares(self, shares: list[float]) -> str:
        """Least, mean and largest share over the routed layers: of tokens that execute, and of these that attend."""
        names = self.control.names or [".skip_router"] * len(shares)
        out = ""
        for word, kind in (("execute", ".skip_router"), ("attend", ".router")):
            of = [share for name, share in zip(names, shares) if name.endswith(kind)]
            out += f"  {word} {min(of):.2f}..{sum(of) / len(of):.2f}..{max(of):.2f}" if of else ""
        return out

    def _text(self, line: dict[str, Any]) -> str:
        told = self._shares(line["shares"])
        mfu = f"  mfu {line['mfu']:.1%}" if "mfu" in line else ""
        head = f"step {line['step']:>6}/{self.steps}  loss {line['loss']:.4f}  lr {line['lr']:.2e}  norm {line['norm']:.2f}"
        return f"{head}{told}  {line['tokens_per_second']:,.0f} tokens/s{mfu}  eta {clock(line['eta'])}"

    def write(self, line: dict[str, Any]) -> None:
        """A line of JSON, and its numbers as curves."""
        if self.file:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        if self.board:
            for name, value in line.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, line["step"])

    def say(self, text: str) -> None:
        """A line for the person."""
        if self.show:
            print(text, flush=True)
