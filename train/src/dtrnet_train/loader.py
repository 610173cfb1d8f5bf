"""Batches in an order that depends on the seed alone, so that a run resumes at the exact batch from its step number."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dtrnet_train.errors import require
from dtrnet_train.model import NO_TARGET
from dtrnet_train.rows import Rows, make_rows, starts_of, to_device
from dtrnet_train.tokens import TokenFile


class Batch(NamedTuple):
    """What one forward pass of one process reads."""

    tokens: Tensor  # [N] int64
    targets: Tensor  # [N] int64, NO_TARGET where the next token begins another document
    rows: Rows


def make_batch(windows: np.ndarray, bos: int, segments: int = 0) -> Batch:
    """From [windows, length + 1] ids."""
    tokens, targets = windows[:, :-1], windows[:, 1:]
    targets = np.where(targets == bos, NO_TARGET, targets)
    rows = make_rows(starts_of(tokens, bos), segments)
    return Batch(torch.from_numpy(tokens.reshape(-1).copy()), torch.from_numpy(targets.reshape(-1)), rows)


class Loader:
    """Global batch s is windows order[s * batch : (s + 1) * batch]; micro-batch m of process r is its (m * world + r)-th slice."""

    def __init__(
        self, files: list[TokenFile], batch: int, micro: int, rank: int = 0, world: int = 1, seed: int = 1, shuffle: bool = True
    ) -> None:
        self.files, self.batch, self.micro, self.rank, self.world, self.seed, self.shuffle = files, batch, micro, rank, world, seed, shuffle
        require(batch % (micro * world) == 0, f"train.batch {batch} is no multiple of train.micro {micro} times {world} processes")
        self.first = np.cumsum([0, *(f.windows for f in files)])
        self.windows = int(self.first[-1])
        self.steps_per_epoch = self.windows // batch
        require(self.steps_per_epoch, f"data.train has {self.windows} windows, fewer than one batch of {batch}")
        self.micros = batch // (micro * world)
        self.room = 0  # the batch's own number of segments
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def fix_shapes(self, steps: int) -> None:
        """Gives every batch of the first `steps` steps room for the most segments that any of them has."""
        segments, most = np.concatenate([f.segments() for f in self.files]), 0
        for epoch in range(-(-steps // self.steps_per_epoch)):
            used = self.order(epoch)[: self.steps_per_epoch * self.batch]
            most = max(most, int(segments[used].reshape(-1, self.micro).sum(1).max()))
        self.room = -(-most // 64) * 64

    def order(self, epoch: int) -> np.ndarray:
        """The epoch's windows in their order."""
        if epoch != self._epoch:
            numbers = np.arange(self.windows)
            self._order = np.random.default_rng([self.seed, epoch]).permutation(numbers) if self.shuffle else numbers
            self._epoch = epoch
        return self._order

    def window(self, index: int) -> np.ndarray:
        """One window of all files."""
        file = int(np.searchsorted(self.first, index, side="right")) - 1
        return self.files[file].window(index - int(self.first[file]))

    def step(self, step: int) -> tuple[list[Batch], int]:
        """This process's micro-batches of a step, and how many targets the whole global batch has."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self.order(epoch)[place * self.batch : (place + 1) * self.batch]
        windows = np.stack([self.window(int(i)) for i in chosen])
        bos = self.files[0].bos
        count = int((windows[:, 1:] != bos).sum())
        mine = [windows[(m * self.world + self.rank) * self.micro :][: self.micro] for m in range(self.micros)]
        return [make_batch(part, bos, self.room) for part in mine], count


def stream(loader: Loader, first: int, last: int, device: torch.device) -> Iterator[tuple[list[Batch], int]]:
    """Steps first..last - 1 on the device; the next ones are prepared by a thread meanwhile."""
    ready: queue.Queue = queue.Queue(maxsize=3)
    stop = threading.Event()

    def prepare() -> None:
        try:
            for step in range(first, last):
                batches, count = loader.step(step)
                if device.type == "cuda":
                    batches = [_pin(batch) for batch in batches]
                while not stop.is_set():
                    try:
                        ready.put((batches, count), timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
        except BaseException as error:  # shown by the reader, not lost in the thread
            ready.put(error)

    threading.Thread(target=prepare, daemon=True).start()
    try:
        for _ in range(first, last):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            batches, count = item
            yield [move(batch, device) for batch in batches], count
    finally:
        stop.set()


def _pin(batch: Batch) -> Batch:
    rows = batch.rows
    rows = rows._replace(position=rows.position.pin_memory(), segment=rows.segment.pin_memory(), bounds=rows.bounds.pin_memory())
    return Batch(batch.tokens.pin_memory(), batch.targets.pin_memory(), rows)


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return Batch(batch.tokens.to(device, non_blocking=True), batch.targets.to(device, non_blocking=True), to_device(batch.rows, device))
