"""The card of a checkpoint, README.md in its folder: what it is, what it was trained on and how, what was measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dtrnet_train import flops, tables
from dtrnet_train.config import Config
from dtrnet_train.shape import Shape

KINDS = {"T": "dense", "D": "attention or linear", "S": "skipped, linear or attention", "M": "MoD", "L": "D-LLM"}


def _layers(shape: Shape) -> str:
    count = Counter(shape.layer_layout)
    return f"{', '.join(f'{n} {KINDS[letter]}' for letter, n in count.items())} ({shape.layer_layout})"


def _routers(shape: Shape) -> str:
    if shape.family in ("mod", "dllm"):
        return {"mod": "expert choice in training, a learnt stand-in for it at inference", "dllm": "token choice"}[shape.family]
    return f"{shape.router_type}, {shape.routing.replace('_', ' ')}" if shape.routed() else "none"


def _control(config: Config) -> str:
    r, shape = config.routing, config.model
    if not shape.routed() or shape.routing == "expert_choice":
        return "fixed by the architecture"
    if shape.family == "mod":
        return f"capacity {r.mod_capacity:g} in training"
    if shape.family == "dllm":
        return f"loss towards a share of {r.target_exec:g} executed, coefficient {r.coefficient:g}"
    ends = f"attention {r.target_attn:g}" + (f", execution {r.target_exec:g}" if shape.nested() else "")
    return {"tracked": f"tracked: {ends}", "steered": f"steered: {ends}", "none": "not controlled"}.get(
        r.control, f"published auxiliary loss, coefficient {r.coefficient:g}"
    )


def _measured(valid: dict[str, Any], shape: Shape, length: int) -> list[list[str]]:
    """Rows from Trainer.validate: held-out loss, shares, cost at them."""
    routed, nested = shape.routed(), [i for i, letter in enumerate(shape.layer_layout) if letter in "SML"]
    cost = flops.table(shape, [length], valid["execute"], valid["attend"])[0]
    rows = [["held-out loss", f"{valid['valid']:.4f} nats a token, {len(valid['counts'])} documents, {int(sum(valid['counts'])):,} tokens"]]
    if nested:
        rows.append(["share that executes", f"{' '.join(tables.share(valid['execute'][i]) for i in nested)} (layers {_numbers(nested)})"])
    if routed and shape.family == "dtrnet":
        rows.append(["of these attend", f"{' '.join(tables.share(valid['attend'][i]) for i in routed)} (layers {_numbers(routed)})"])
    if routed:
        rows.append(
            [f"cost at {length:,} tokens", f"{cost['of_dense']:.0%} of the dense model's FLOPs, {cost['kv_of_dense']:.0%} of its KV rows"]
        )
    return rows


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def text(config: Config, parameters: int, step: int, steps: int, valid: dict[str, Any] | None = None) -> str:
    """Markdown; `valid` is what `Trainer.validate` gave at this step."""
    shape, train, data = config.model, config.train, config.data
    heads = f"{shape.num_attention_heads} query and {shape.num_key_value_heads} KV heads of {shape.head_dim}"
    rows = [
        ["parameters", f"{parameters / 1e6:.1f} million, stored in {train.export}"],
        ["shape", f"hidden {shape.hidden_size}, ffn {shape.intermediate_size}, {shape.num_hidden_layers} layers, {heads}"],
        ["layers", _layers(shape)],
        ["routers", _routers(shape)],
        ["norms", {"none": "pre-norm"}.get(shape.norm_method, shape.norm_method)],
        ["shares", _control(config)],
        ["positions", f"{train.length:,} in training, RoPE theta {shape.rope_theta:g}"],
        ["tokens", f"{step * train.batch * train.length:,} in {step:,} of {steps:,} steps of {train.batch * train.length:,}"],
        ["data", ", ".join(Path(p).name for p in data.train)],
        ["optimizer", f"{train.optimizer}, {train.schedule} from {train.learning_rate:g}, decay {train.weight_decay:g}, {train.precision}"],
        ["seed", str(train.seed)],
    ]
    rows += _measured(valid, shape, train.length) if valid else []
    about = "Trained by dtrnet-train; train.json beside this file has every setting. It is loaded by `dtrnet serve --model` as it is."
    name = config.name.removesuffix(".yaml")
    return f"# {name}, step {step:,}\n\n{about}\n\n{tables.markdown(['', ''], [[a, b.replace('|', '/')] for a, b in rows])}\n"
