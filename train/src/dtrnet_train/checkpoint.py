"""Two things on disk: a checkpoint as the server reads it, and the state from which a run goes on."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict

from dtrnet_train import parallel
from dtrnet_train.errors import require
from dtrnet_train.parallel import World
from dtrnet_train.shape import Shape, to_json

KEEP_FLOAT32 = ("A_log", "mixer.D", "dt_proj.bias", "threshold")  # SPEC: these stay float32 in a bf16 file


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights on the CPU; every process must call it, the first gets them."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _shards(tensors: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    out: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        bytes_ = tensor.numel() * tensor.element_size()
        if out[-1] and size + bytes_ > limit:
            out.append({})
            size = 0
        out[-1][name] = tensor
        size += bytes_
    return out


def export(
    folder: Path,
    weights: dict[str, Tensor],
    shape: Shape,
    dtype: str,
    shard_bytes: int,
    about: dict[str, Any],
    tokenizer: str | None,
    card: str = "",
) -> None:
    """Writes config.json, safetensors, the tokenizer, train.json and README.md; the folder appears whole or not at all."""
    half = dtype == "bf16"
    tensors = {}
    for name, tensor in weights.items():
        tensors[name] = tensor.to(torch.bfloat16 if half and not name.endswith(KEEP_FLOAT32) else torch.float32).contiguous()
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    shards = _shards(tensors, shard_bytes)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))] if len(shards) > 1 else ["model.safetensors"]
    for name, shard in zip(names, shards):
        save_file(shard, new / name, metadata={"format": "pt"})
    if len(shards) > 1:
        where = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
        (new / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=1))
    (new / "config.json").write_text(json.dumps(to_json(shape, "bfloat16" if half else "float32"), indent=2) + "\n")
    (new / "train.json").write_text(json.dumps(about, indent=1) + "\n")
    if card:
        (new / "README.md").write_text(card, encoding="utf-8")
    if tokenizer:
        shutil.copyfile(tokenizer, new / "tokenizer.model")
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": np.random.get_state(), "python": random.getstate()}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def saved_states(out: Path) -> list[Path]:
    """States of a run, oldest first."""
    return sorted(p for p in out.glob("state-*") if p.is_dir() and p.suffix != ".new")


def save_state(out: Path, model: nn.Module, optimizers: list, extra: dict[str, Any], world: World, keep: int) -> None:
    """Everything that a run needs to go on; every process must call it."""
    folder = out / f"state-{extra['step']:08}"
    new = folder.with_suffix(".new")
    if world.rank == 0:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
    parallel.wait()
    weights, moments = get_state_dict(model, optimizers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group is no news
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=str(new))
    torch.save({**extra, "random": _random_state()}, new / f"process-{world.rank}.pt")
    parallel.wait()
    if world.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        for old in saved_states(out)[:-keep]:
            shutil.rmtree(old)
    parallel.wait()


def load_state(out: Path, model: nn.Module, optimizers: list, world: World) -> dict[str, Any] | None:
    """The newest state into model and optimizers; what was saved with it, or None if there is none."""
    states = saved_states(out)
    if not states:
        return None
    weights, moments = get_state_dict(model, optimizers)
    state = {"model": weights, "optimizer": moments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=str(states[-1]))
    set_state_dict(model, optimizers, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    own = states[-1] / f"process-{world.rank}.pt"
    own = own if own.is_file() else states[-1] / "process-0.pt"  # more processes than before: the same bits are not asked for
    require(own.is_file(), f"{states[-1]}: process-0.pt is missing")
    extra = torch.load(own, weights_only=False)
    _set_random_state(extra.pop("random"))
    return extra
