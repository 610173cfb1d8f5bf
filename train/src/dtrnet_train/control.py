"""How many tokens take the expensive way, and what holds the share there.

Three ways, as docs/training.md tells:

    published  an auxiliary loss: the mean p0 of each layer, weighted by the share it routes; no lower bound
    steered    the same with one coefficient a layer, moved so that the shares come to their targets
    tracked    no loss: after each step every router's last bias moves so that the wanted share lies above the border

A share, a target and a coefficient exist for each *router*: (layer, "router") over the tokens that could be chosen, and
(layer, "skip_router") over all.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from dtrnet_train.config import Routing
from dtrnet_train.layers import Practice, Record
from dtrnet_train.model import Model
from dtrnet_train.selection import Decision


def practice(routing: Routing) -> Practice:
    """What selection does in training under these settings."""
    published = routing.control == "published"
    return Practice(published, routing.safe_min_attn_ratio, routing.safe_min_exec_ratio, routing.mod_capacity)


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(x)
        x /= dist.get_world_size()
    return x


def _gather(x: Tensor) -> Tensor:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts, -1)


def _add(parameter: Tensor, by: Tensor) -> None:
    if isinstance(parameter, DTensor):  # a shard, under FSDP
        by = distribute_tensor(by, parameter.device_mesh, parameter.placements)
    parameter += by


def decisions(model: Model, records: list[Record]) -> list[Decision]:
    """In the order of `model.routers()`."""
    return [records[i].execute if name == "skip_router" else records[i].attend for i, name, _ in model.routers()]


class Control:
    """The state of a run's share control. `targets`, `shares` and `lambdas` are in the order of `model.routers()`."""

    def __init__(self, model: Model, routing: Routing, steps: int, device: torch.device) -> None:
        self.model, self.routing, self.steps = model, routing, steps
        self.names = [f"{i}.{name}" for i, name, _ in model.routers()]
        goals = [routing.target_exec if name == "skip_router" else routing.target_attn for _, name, _ in model.routers()]
        self.goals = torch.tensor(goals, device=device)
        self.skip = torch.tensor([name == "skip_router" for _, name, _ in model.routers()], device=device)
        self.lambdas = torch.zeros(len(goals), device=device)
        self.free = model.shape.routing == "expert_choice" or not goals  # capacities fix the shares: nothing to control
        self.margins: list[Tensor] = []
        self.shares: list[Tensor] = []
        self.extra: list[Tensor] = []

    def targets(self, step: int) -> Tensor:
        """Targets fall from the beginning (1, or 0.95 when tracked) to their value."""
        begin = 0.95 if self.routing.control == "tracked" else 1.0
        done, r = step / self.steps, self.routing
        left = 1 - (done - r.fall_from) / max(r.fall_to - r.fall_from, 1e-9)
        return self.goals + (begin - self.goals).clamp(min=0) * min(1.0, max(0.0, left))

    def loss(self, records: list[Record]) -> Tensor | float:
        """The auxiliary loss of one micro-batch; keeps what `after_step` needs."""
        made = decisions(self.model, records)
        if self.model.shape.family in ("mod", "dllm"):
            return self._other_family(records)
        if not made:
            return 0.0
        chosen = torch.stack([d.chosen for d in made]).float()
        among = torch.stack([d.among for d in made]).float()
        share = mean_over_processes(torch.stack([chosen.sum(1), among.sum(1)]))
        share = share[0] / share[1].clamp(min=1)
        self.shares.append(share)
        if self.free or self.routing.control == "none":
            return 0.0
        if self.routing.control == "tracked":
            self.margins.append(torch.stack([torch.where(d.among, d.margin.detach(), float("inf")) for d in made]))
            return 0.0
        prob = torch.stack([(d.prob * d.among).sum() / d.among.sum().clamp(min=1) for d in made])
        if self.routing.control == "steered":
            return (self.lambdas * prob).sum() / len(self.model.routed_layers())
        return self.routing.coefficient * sum(self._weighted(prob, share, kind) for kind in (self.skip, ~self.skip))

    @staticmethod
    def _weighted(prob: Tensor, share: Tensor, kind: Tensor) -> Tensor:
        """Mean p0 weighted by the share routed, as published; 0 if nothing is routed."""
        weight = share * kind
        return (weight * prob).sum() / weight.sum().clamp(min=1e-6)

    def _other_family(self, records: list[Record]) -> Tensor:
        """MoD: its routers' own loss. D-LLM: the distance of each token's share of executed layers from the target."""
        routed = [r for r in records if r.execute is not None]
        chosen = torch.stack([r.execute.chosen for r in routed]).float().mean(1)
        self.shares.append(mean_over_processes(chosen))
        if self.model.shape.family == "mod":
            return torch.stack([r.aux for r in routed]).mean()
        executed = torch.stack([r.execute.prob for r in routed]).sum(0) + (len(records) - len(routed))
        return self.routing.coefficient * (executed / len(records) - self.routing.target_exec).abs().mean()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Moves biases (tracked) or coefficients (steered) once an optimizer step is done."""
        shares, margins = self.shares, self.margins
        self.extra, self.shares, self.margins = self.shares, [], []
        if self.free or not shares:
            return
        if self.routing.control == "tracked":
            self._move_biases(_gather(torch.cat(margins, -1)), self.targets(step))
        elif self.routing.control == "steered":
            self._move_lambdas(torch.stack(shares).mean(0), self.targets(step))

    def _move_biases(self, margins: Tensor, targets: Tensor) -> None:
        """margins [routers, rows], infinite where a row could not be chosen. Half of the distance to the wanted quantile, by default."""
        ordered = torch.sort(margins, 1).values
        n = torch.isfinite(margins).sum(1)
        at = ((1 - targets) * (n - 1).clamp(min=0)).unsqueeze(1)
        low, part = at.floor().long(), at - at.floor()
        high = torch.minimum(low + 1, (n - 1).clamp(min=0).unsqueeze(1))
        quantile = ordered.gather(1, low) * (1 - part) + ordered.gather(1, high) * part
        shift = torch.where(n > 0, self.routing.rate * quantile[:, 0], 0)
        for (_, _, router), by in zip(self.model.routers(), shift):
            _add(router.last.bias, torch.stack([-by / 2, by / 2]))

    def _move_lambdas(self, shares: Tensor, targets: Tensor) -> None:
        """Integral control, half by the layer's own share and half by the mean of its kind; the coefficients stay in [-0.05, 0.4]."""
        mean = torch.where(self.skip, *((shares * kind).sum() / kind.sum().clamp(min=1) for kind in (self.skip, ~self.skip)))
        moved = self.lambdas + self.routing.gain * (0.5 * (shares - targets) + 0.5 * (mean - targets))
        self.lambdas = torch.where(targets < 1, moved.clamp(-0.05, 0.4), self.lambdas)

    def last_shares(self) -> list[float]:
        """The shares of the step before, by router; of routed layers for MoD and D-LLM."""
        return torch.stack(self.extra).mean(0).tolist() if self.extra else []

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"lambdas": self.lambdas}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.lambdas = state["lambdas"].to(self.lambdas.device)
