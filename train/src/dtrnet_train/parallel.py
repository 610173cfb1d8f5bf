"""One process or several started by torchrun; DDP, or FSDP2 (parameters, gradients and optimizer state sharded, as ZeRO-3)."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from dtrnet_train.model import Model


class World(NamedTuple):
    """This process among all."""

    rank: int
    size: int
    device: torch.device


def begin(device: str = "auto") -> World:
    """Joins the others if torchrun started this process."""
    rank, size, local = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(where)
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return World(rank, size, where)


def end() -> None:
    """Leaves the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap(model: Model, world: World, kind: str) -> nn.Module:
    """The module to call in training. FSDP shards `model` itself; DDP stands around it."""
    if world.size == 1:
        return model
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for layer in model.model.layers:
            fully_shard(layer)
        return fully_shard(model)
    from torch.nn.parallel import DistributedDataParallel

    ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, broadcast_buffers=False)


def hold_back(module: nn.Module, hold: bool) -> None:
    """Without communication for all micro-batches of a step but the last."""
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(not hold)
    elif hasattr(module, "require_backward_grad_sync"):
        module.require_backward_grad_sync = not hold


def wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def any_of(flag: bool, world: World) -> bool:
    """True if it is true in any process."""
    if world.size == 1:
        return flag
    value = torch.tensor([float(flag)])
    dist.all_reduce(value, dist.ReduceOp.MAX)  # on the CPU, so that the device is not waited for
    return bool(value.item())
