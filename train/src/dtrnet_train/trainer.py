"""A run: from a config and a folder to checkpoints, stopped and resumed at will."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dtrnet_train import card, checkpoint, config, control, flops, model, optimizer, parallel
from dtrnet_train.config import Config
from dtrnet_train.errors import require
from dtrnet_train.evaluate import Pieces, by_document
from dtrnet_train.loader import Batch, Loader, stream
from dtrnet_train.parallel import World
from dtrnet_train.progress import Progress
from dtrnet_train.tokens import TokenFile

# Settings that may differ between the parts of a run.
FREE = {"compile", "log_every", "valid_every", "save_every", "keep", "parallel", "micro", "export", "shard_bytes", "checkpointing"}


def _seed(seed: int, world: World) -> None:
    torch.manual_seed(seed * 1000 + world.rank)
    np.random.seed(seed * 1000 + world.rank)


def total_steps(settings: config.Train, loader: Loader) -> int:
    """Steps of the whole run."""
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is not None:
        return max(1, round(settings.epochs * loader.steps_per_epoch))
    return max(1, settings.tokens // (settings.batch * settings.length))


class Trainer:
    """All that a run consists of. Every process has one."""

    def __init__(self, settings: Config, out: Path, world: World, show: bool = True) -> None:
        self.config, self.train, self.out, self.world = settings, settings.train, out, world
        self._same_run()
        self._precision()
        files = [TokenFile(path, self.train.length, settings.data.bos) for path in settings.data.train]
        require(files, f"{settings.name}: data.train names no token file")
        for file in files:
            file.fit(settings.model.vocab_size)
        require(self.train.batch % world.size == 0, f"train.batch {self.train.batch} is no multiple of {world.size} processes")
        micro = self.train.micro or self.train.batch // world.size
        tokenizer = settings.data.tokenizer
        require(tokenizer is None or Path(tokenizer).is_file(), f"data.tokenizer: {tokenizer}: no such file")
        self.loader = Loader(files, self.train.batch, micro, world.rank, world.size, self.train.seed, settings.data.shuffle)
        self.steps, self.step, self.micro = total_steps(self.train, self.loader), 0, micro
        self.loader.fix_shapes(self.steps)
        self._build()
        data = settings.data
        self.pieces = Pieces(data.valid, self.train.length, data.bos, settings.model.vocab_size) if data.valid else None
        name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else ""
        peak = flops.peak(name)
        tokens = self.train.batch * self.train.length
        show = show and world.rank == 0
        self.progress = Progress(out, settings.model, self.control, self.steps, tokens, self.train.length, peak and peak * world.size, show)
        self.stopped = False

    def _same_run(self) -> None:
        """A folder holds one run; settings that would change its numbers must stay."""
        file, now = self.out / "run.json", json.loads(json.dumps(config.as_dict(self.config)))
        if file.is_file():
            before = json.loads(file.read_text())
            for section in ("model", "train", "routing"):
                for key, value in now[section].items():
                    same = key in FREE or before[section].get(key) == value
                    require(same, f"{self.out} holds a run with {section}.{key} {before[section].get(key)!r}, not {value!r}")
        elif self.world.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(now, indent=1) + "\n")
        parallel.wait()

    def _precision(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False  # routers are float32 products
        if self.train.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)

    def _build(self) -> None:
        dtype = torch.bfloat16 if self.train.precision == "bf16" else torch.float32
        torch.manual_seed(self.train.seed)  # the same start in every process
        self.model = model.Model(self.config.model, dtype)
        model.start(self.model, self.config.routing.initial_bias)
        self.model.to(self.world.device).practise(control.practice(self.config.routing))
        self.model.checkpointing = self.train.checkpointing
        if self.train.compile:
            self.model.compile()
        self.module = parallel.wrap(self.model, self.world, self.train.parallel)
        self.optimizers = optimizer.make(self.model, self.train)
        self.control = control.Control(self.model, self.config.routing, self.steps, self.world.device)
        _seed(self.train.seed, self.world)

    def resume(self) -> bool:
        """Goes back to where the folder's newest state was saved."""
        extra = checkpoint.load_state(self.out, self.model, self.optimizers, self.world)
        if extra is None:
            return False
        self.step = extra["step"]
        self.control.restore(extra["control"])
        return True

    def save(self) -> None:
        """State and checkpoint of this step."""
        extra = {"step": self.step, "control": self.control.state()}
        checkpoint.save_state(self.out, self.model, self.optimizers, extra, self.world, self.train.keep)
        weights = checkpoint.full_weights(self.model)
        if self.world.rank == 0:
            about = {"step": self.step, "tokens": self.step * self.train.batch * self.train.length, "config": config.as_dict(self.config)}
            data, train = self.config.data, self.train
            folder = self.out / f"step-{self.step:08}"
            checkpoint.export(folder, weights, self.config.model, train.export, train.shard_bytes, about, data.tokenizer, self._card())
        parallel.wait()

    def _card(self, valid: dict[str, Any] | None = None) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
        return card.text(self.config, parameters, self.step, self.steps, valid)

    def one_step(self, batches: list[Batch], count: int) -> dict[str, torch.Tensor]:
        """Forward, backward, update; numbers stay on the device."""
        self.module.train()
        losses = []
        for number, batch in enumerate(batches):
            parallel.hold_back(self.module, number + 1 < len(batches))
            loss, records = self.module(batch.tokens, batch.rows, batch.targets)
            aux = self.control.loss(records)
            # Gradients are averaged over processes: the sum over all targets, divided by their number.
            (loss * (self.world.size / count) + aux / len(batches)).backward()
            losses.append(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.clip or math.inf)
        rate = optimizer.learning_rate(self.train, self.step, self.steps)
        for one in self.optimizers:
            for group in one.param_groups:
                group["lr"] = rate
            one.step()
            one.zero_grad(set_to_none=True)
        self.control.after_step(self.step)
        self.step += 1
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return {"loss": torch.stack(losses).sum() / (count / self.world.size), "norm": norm}

    def validate(self) -> dict[str, Any]:
        """The held-out loss, by document as well, and the shares there."""
        held = by_document(self.model, self.pieces, self.micro, self.world)
        lists = {"sums": held.sums.tolist(), "counts": held.counts.tolist(), "execute": held.execute, "attend": held.attend}
        return {"valid": held.loss, **lists}

    def _numbers(self, kept: list[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Means since the last line; waits for the device."""
        loss = control.mean_over_processes(torch.stack([k["loss"] for k in kept]).mean().double())
        numbers = {
            "loss": loss.item(),
            "norm": kept[-1]["norm"].item(),
            "lr": optimizer.learning_rate(self.train, self.step - 1, self.steps),
        }
        require(math.isfinite(numbers["loss"]), f"the loss is {numbers['loss']} at step {self.step}; a lower train.learning_rate may help")
        return numbers

    def _tell(self, kept: list[dict[str, torch.Tensor]]) -> None:
        self.progress.step(self.step, self._numbers(kept))

    def run(self, until: int | None = None) -> dict[str, Any]:
        """Trains to the end, to step `until`, or until told to stop (SIGTERM, SIGINT); then saves. Returns the last held-out loss."""
        told: list[int] = []
        old = {s: signal.signal(s, lambda number, _: told.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
        last, kept, every = min(until or self.steps, self.steps), [], self.train
        self.progress.begin(self.step)
        try:
            for batches, count in stream(self.loader, self.step, last, self.world.device):
                kept.append(self.one_step(batches, count))
                if self.step % every.log_every == 0 or self.step == last:
                    self._tell(kept)
                    kept = []
                if parallel.any_of(bool(told), self.world):
                    self.stopped = True
                    break
                if every.save_every and self.step % every.save_every == 0 and self.step < last:
                    self.save()
                    self.progress.begin(self.step)
                if self.pieces and every.valid_every and self.step % every.valid_every == 0 and self.step < last:
                    self._tell_valid()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        self.save()
        if self.stopped:
            self.progress.say(f"stopped at step {self.step}; the same command goes on")
            return {}
        result = self._tell_valid() if self.pieces and self.step == self.steps else {}
        if self.step == self.steps and self.world.rank == 0:
            (self.out / "finished.json").write_text(json.dumps({"step": self.step}) + "\n")  # whoever watches the folder may go
        return result

    def _tell_valid(self) -> dict[str, Any]:
        result = self.validate()
        self.progress.write({"step": self.step, "valid": result["valid"]})
        self.progress.say(f"step {self.step:>6}  held-out loss {result['valid']:.4f}")
        self.progress.begin(self.step)
        if self.world.rank == 0:
            (self.out / "valid.json").write_text(json.dumps({"step": self.step, **result}) + "\n")
            saved = self.out / f"step-{self.step:08}"
            if saved.is_dir():
                (saved / "README.md").write_text(self._card(result), encoding="utf-8")
        return result
