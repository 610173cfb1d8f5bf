"""What holds the shares: `tracked` comes to its target, `published` and `steered` keep the routers' gradients alive."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from dtrnet_train.loader import stream
from dtrnet_train.trainer import Trainer
from support import trainer

LONG = {"train__steps": 200, "train__batch": 4}


class Story(NamedTuple):
    """What a run's routers did, a row a step."""

    shares: torch.Tensor  # [steps, routers], training batches
    gradients: torch.Tensor  # [steps, routers], norm of the routers' gradients before clipping


def watch(run: Trainer) -> Story:
    """Trains to the end."""
    shares, gradients, norms = [], [], {}

    def keep(name: str, parameter: torch.nn.Parameter) -> None:
        parameter.register_post_accumulate_grad_hook(lambda p: norms.__setitem__(name, float(p.grad.norm())))

    for i, name, router in run.model.routers():
        keep(f"{i}.{name}", next(router.parameters()))
    for batches, count in stream(run.loader, 0, run.steps, run.world.device):
        run.one_step(batches, count)
        shares.append(run.control.last_shares())
        gradients.append([norms[name] for name in run.control.names])
    return Story(torch.tensor(shares), torch.tensor(gradients))


@pytest.mark.parametrize("variant", ["bilayer", "nested", "nested_mamba"])
def test_tracked(tmp_path: Path, variant: str) -> None:
    windows = {"train__length": 32, "train__batch": 8} if variant == "nested_mamba" else {}  # the scan's loop goes over the length
    run = trainer(tmp_path, variant, **(LONG | windows), routing__target_attn=0.25, routing__target_exec=0.6)
    late = watch(run).shares[-50:].mean(0)
    wanted = run.control.goals
    for kind in (run.control.skip, ~run.control.skip):
        if kind.any():
            assert abs(float(late[kind].mean() - wanted[kind].mean())) <= 0.1, late
    assert bool(((late > 0.01) & (late < 0.99)).all()), late


@pytest.mark.parametrize("control", ["published", "steered"])
def test_gradients_stay(tmp_path: Path, control: str) -> None:
    story = watch(trainer(tmp_path, "nested", **LONG, routing__control=control))
    assert bool((story.gradients[-50:].mean(0) > 0).all()), story.gradients[-50:].mean(0)


def test_steered_moves_towards_its_target(tmp_path: Path) -> None:
    run = trainer(tmp_path, "bilayer", train__steps=4, routing__control="steered", routing__fall_from=0, routing__fall_to=0.01)
    watch(run)
    assert bool((run.control.lambdas > 0).all())  # everything attends at first, so the loss must push down


def test_published_loss(tmp_path: Path) -> None:
    """Mean p0 by layer, weighted by the share routed; a layer that routes nothing lends no weight."""
    run = trainer(tmp_path, "bilayer", routing__control="published", routing__coefficient=0.5)
    batch = run.loader.step(0)[0][0]
    _, records = run.module(batch.tokens, batch.rows, batch.targets)
    probs = [r.attend.prob.mean() for r in records if r.attend]
    shares = [r.attend.chosen.float().mean() for r in records if r.attend]
    wanted = 0.5 * sum(s * p for s, p in zip(shares, probs)) / sum(shares)
    assert run.control.loss(records).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_least_shares(tmp_path: Path) -> None:
    """`safe_min_attn_ratio` adds the best tokens where too few are chosen, in training only."""
    run = trainer(tmp_path, "bilayer", routing__initial_bias=-5, routing__safe_min_attn_ratio=0.2)
    batch = run.loader.step(0)[0][0]
    for training, low, high in ((True, 0.2, 0.21), (False, 0, 0.01)):
        run.model.train(training)
        _, records = run.module(batch.tokens, batch.rows, batch.targets)
        for share in (float(r.attend.chosen.float().mean()) for r in records if r.attend):
            assert low <= share <= high
