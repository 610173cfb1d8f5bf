"""Every variant learns: the loss of a tiny corpus falls, and every parameter gets a gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dtrnet_train.loader import stream
from dtrnet_train.trainer import Trainer
from support import VARIANTS, trainer

LEAST, CHANCE = 1.1, 3.69  # what the corpus leaves to chance, and what knowing no more than how often a token comes gives
QUICK = {"train__steps": 45, "train__batch": 4, "train__learning_rate": 1e-2}


def losses(run: Trainer) -> list[float]:
    """The loss of each step of a whole run; nothing is written."""
    out = []
    for batches, count in stream(run.loader, 0, run.steps, run.world.device):
        out.append(float(run.one_step(batches, count)["loss"]))
    return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_falls(tmp_path: Path, variant: str) -> None:
    seen = losses(trainer(tmp_path, variant, **QUICK))
    first, last = seen[0], sum(seen[-5:]) / 5
    assert 5.3 < first < 6.0, f"{variant} starts at {first}, far from the logarithm of 256 pieces"
    assert LEAST < last < CHANCE - 0.2, f"{variant}: {first} -> {last}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(tmp_path: Path, variant: str) -> None:
    run = trainer(tmp_path, variant, routing__initial_bias=0.0)  # both ways are taken
    run.module.train()
    batches, _ = run.loader.step(0)
    loss, records = run.module(batches[0].tokens, batches[0].rows, batches[0].targets)
    (loss + run.control.loss(records)).backward()
    without = [name for name, p in run.model.named_parameters() if p.grad is None or not torch.any(p.grad != 0)]
    assert not without, f"{variant}: no gradient in {without}"


def test_activations_computed_again_change_nothing(tmp_path: Path) -> None:
    kept, again = (losses(trainer(tmp_path, "nested", train__steps=3, train__checkpointing=c)) for c in ("false", "true"))
    assert kept == again


def test_small_batches_add_up(tmp_path: Path) -> None:
    whole, parts = (losses(trainer(tmp_path, "dense", train__steps=5, train__micro=m)) for m in (8, 2))
    assert max(abs(a - b) for a, b in zip(whole, parts)) < 1e-4
