"""A run as YAML: `model:` (shape.py), `data:`, `train:`, `routing:`. Unknown keys and values out of range are refused by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from dtrnet_train import shape as shapes
from dtrnet_train.errors import require
from dtrnet_train.shape import Shape


@dataclass(frozen=True)
class Data:
    """Where tokens come from. Paths are relative to the working directory."""

    train: list[str] = field(default_factory=list)  # token files (tokens.py), one after another
    valid: str | None = None
    tokenizer: str | None = None  # tokenizer.model, copied into checkpoints
    bos: int = 1
    shuffle: bool = True  # windows in a random order, a new one each epoch


@dataclass(frozen=True)
class Train:
    """How to train. `batch` is windows a step over all processes, `micro` windows a forward pass of one process."""

    length: int = 2048
    batch: int = 32
    micro: int = 0  # 0: the whole batch of a process at once
    steps: int | None = None  # one of steps, epochs, tokens
    epochs: float | None = None
    tokens: int | None = None
    seed: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    final_learning_rate: float = 3e-5
    schedule: str = "cosine"
    warmup: float = 0.02  # a share of the steps
    weight_decay: float = 0.1
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    epsilon: float = 1e-8
    clip: float = 1.0
    precision: str = "bf16"
    compile: bool = True
    checkpointing: bool = False  # compute activations again in the backward pass
    deterministic: bool = False  # slower backward attention on a GPU; the same bits every time
    parallel: str = "ddp"
    log_every: int = 10
    valid_every: int = 0  # 0: only at the end
    save_every: int = 0  # 0: only at the end and when told to stop
    keep: int = 2
    export: str = "bf16"
    shard_bytes: int = 5_000_000_000


@dataclass(frozen=True)
class Routing:
    """How the share of tokens that take the expensive way is set. See control.py."""

    control: str = "tracked"
    target_attn: float = 0.1
    target_exec: float = 0.6
    coefficient: float = 8e-4  # published, and D-LLM's
    gain: float = 0.004  # steered
    rate: float = 0.5  # tracked
    fall_from: float = 0.05  # targets fall between these shares of the run
    fall_to: float = 0.3
    safe_min_attn_ratio: float = 0.0
    safe_min_exec_ratio: float = 0.0
    mod_capacity: float = 0.7
    initial_bias: float = 0.4


@dataclass(frozen=True)
class Config:
    """All of it, and the file it came from."""

    model: Shape
    data: Data
    train: Train
    routing: Routing
    name: str


CHOICES = {
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "constant"),
    "precision": ("bf16", "float32"),
    "parallel": ("ddp", "fsdp"),
    "export": ("bf16", "float32"),
    "control": ("published", "steered", "tracked", "none"),
}
# (low, high): what each number must lie in.
RANGES: dict[str, tuple[float, float]] = {
    **{name: (1, 2**40) for name in ("length", "batch", "steps", "tokens", "log_every", "keep")},
    **{name: (0, 1) for name in ("warmup", "safe_min_attn_ratio", "safe_min_exec_ratio", "fall_from", "fall_to", "rate")},
    **{name: (1e-6, 1) for name in ("target_attn", "target_exec", "mod_capacity")},
    **{name: (0, 1e6) for name in ("micro", "valid_every", "save_every", "seed", "weight_decay", "coefficient", "gain", "clip", "bos")},
    **{"learning_rate": (0, 10), "final_learning_rate": (0, 10), "epsilon": (0, 1), "epochs": (1e-9, 1e6), "shard_bytes": (1e6, 2**50)},
}


def _typed(section: str, name: str, kind: Any, value: Any) -> Any:
    where = f"{section}.{name}"
    text = str(kind)
    if value is None:
        require("None" in text, f"{where} must have a value")
        return None
    if kind is bool:
        require(isinstance(value, bool), f"{where} must be true or false, not {value!r}")
    elif text.startswith("list"):
        element = str if "str" in text else (int, float)
        require(isinstance(value, list) and all(isinstance(x, element) for x in value), f"{where} must be a list, not {value!r}")
    elif "str" in text:
        require(isinstance(value, str), f"{where} must be text, not {value!r}")
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(
            number and ("float" in text or value == int(value)),
            f"{where} must be a {'' if 'float' in text else 'whole '}number, not {value!r}",
        )
        value = float(value) if "float" in text else int(value)
    return value


def _section(kind: type, section: str, raw: Any) -> Any:
    """A dataclass from a mapping."""
    require(isinstance(raw, dict), f"{section}: must be a mapping of keys to values")
    hints, out = get_type_hints(kind), {}
    for name, value in raw.items():
        require(name in hints, f"{section}: unknown key {name!r}")
        value = out[name] = _typed(section, name, hints[name], value)
        if name in CHOICES:
            require(value in CHOICES[name], f"{section}.{name} must be one of {', '.join(CHOICES[name])}, not {value!r}")
        if name in RANGES and value is not None:
            low, high = RANGES[name]
            require(low <= value <= high, f"{section}.{name} must be {low:g} to {high:g}, not {value!r}")
    return kind(**out)


def _override(raw: dict[str, Any], text: str) -> None:
    path, sign, value = text.partition("=")
    section, dot, name = path.partition(".")
    require(sign and dot and name, f"{text!r} is no setting; settings are SECTION.KEY=VALUE")
    raw.setdefault(section, {})
    require(isinstance(raw[section], dict), f"{section}: must be a mapping of keys to values")
    raw[section][name] = yaml.safe_load(value)


def parse(raw: Any, settings: list[str], name: str) -> Config:
    """A checked config from what a YAML file holds and SECTION.KEY=VALUE settings on top."""
    require(isinstance(raw, dict), f"{name}: must be a mapping with model, data, train and routing")
    raw = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for text in settings:
        _override(raw, text)
    unknown = sorted(set(raw) - {"model", "data", "train", "routing"})
    require(not unknown, f"{name}: unknown section {unknown[0] if unknown else ''!r}")
    require(isinstance(raw.get("model"), dict), f"{name}: the section model is missing")
    model = dict(raw["model"])
    if isinstance(model.get("layer_layout"), str) and isinstance(model.get("num_hidden_layers"), int):
        model["layer_layout"] = shapes.expand_layout(model["layer_layout"], model["num_hidden_layers"])
    parts = {key: _section(kind, key, raw.get(key) or {}) for key, kind in (("data", Data), ("train", Train), ("routing", Routing))}
    config = Config(model=shapes.read(model, where=f"{name}: model"), name=name, **parts)
    train = config.train
    require(
        sum(x is not None for x in (train.steps, train.epochs, train.tokens)) == 1, f"{name}: give one of train.steps, epochs and tokens"
    )
    require(len(train.betas) == 2 and all(0 <= b < 1 for b in train.betas), f"{name}: train.betas must be two numbers from 0 to below 1")
    require(config.routing.fall_from <= config.routing.fall_to, f"{name}: routing.fall_from must not be over routing.fall_to")
    return config


def read(path: Path, settings: list[str]) -> Config:
    """A checked config from a YAML file. A file may name another as its `base:`, whose values it replaces key by key."""
    return parse(_load(path, 0), settings, path.name)


def _load(path: Path, depth: int) -> dict[str, Any]:
    require(path.is_file(), f"{path}: no such file")
    require(depth < 8, f"{path}: base files refer to each other")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        require(False, f"{path}: not YAML: {' '.join(str(error).split())}")
    require(isinstance(raw, dict), f"{path}: must be a mapping with model, data, train and routing")
    if "base" not in raw:
        return raw
    out = _load(path.parent / str(raw.pop("base")), depth + 1)
    for key, value in raw.items():
        out[key] = {**out.get(key, {}), **value} if isinstance(value, dict) and isinstance(out.get(key, {}), dict) else value
    return out


def as_dict(config: Config) -> dict[str, Any]:
    """For train.json beside a checkpoint."""
    return dataclasses.asdict(config)
