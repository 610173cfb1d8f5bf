"""What a model is: the server's config.json as a checked record.

Four families share one layer. Three of them are published; UltraDeep is DTRNet with more axes:

    dense    every layer T
    dtrnet   a letter for each layer: T dense, D attention or linear path, S nested (skip the layer, or execute it as D)
    mod      odd layers choose the tokens that pass through the whole layer
    dllm     layers from 2 on choose the tokens that they execute
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dtrnet_train.errors import require

FAMILIES = ("dense", "dtrnet", "mod", "dllm")
NORMS = ("none", "lns", "hybridnorm", "hybridnorm*")
# The names of layouts; the pattern repeats over the layers.
PATTERNS = {"bilayer": "TD", "trilayer": "TDD", "nested_bilayer": "TS", "nested_trilayer": "TDS", "0attn": "D", "all_t": "T"}
# Keys of config.json that do not change what is computed here.
IGNORED = {
    *(
        "architectures",
        "model_type",
        "attention_dropout",
        "initializer_range",
        "use_cache",
        "auto_map",
        "min_dtype",
        "transformers_version",
    ),
    *("_name_or_path", "torch_dtype", "dtype", "pretraining_tp", "hidden_act", "topk", "aux_loss_coeff", "aux_loss_coef", "exec_loss_coef"),
    *("dynamic_reserve_initials", "dynamic_active_target", "target_attn_ratio", "target_exec_ratio", "safe_min_attn_ratio"),
    *("safe_min_exec_ratio", "pad_token_id", "dtrnet_layers"),
}


@dataclass(frozen=True)
class Shape:
    """Sizes and axes of a model. Field names are config.json's; `family` is not in it (tensor names tell it there)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    family: str = "dtrnet"
    layer_layout: str = ""
    num_key_value_heads: int = 0
    head_dim: int = 0
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    max_position_embeddings: int = 2048
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    bos_token_id: int = 1
    eos_token_id: int = 2
    norm_method: str = "none"
    router_type: str = "mlp"
    router_dim: int = 64
    router_d_state: int = 16
    router_d_conv: int = 4
    router_expand: int = 2
    router_dt_rank: int = 0
    routing: str = "token_choice"
    attn_capacity: float | None = None
    exec_capacity: float | None = None
    expert_choice_inference: str | None = None

    @property
    def router_inner(self) -> int:
        """Channels of a Mamba router's scan."""
        return self.router_expand * self.router_dim

    def routed(self) -> list[int]:
        """Layers that choose tokens, in ascending order."""
        return [i for i, letter in enumerate(self.layer_layout) if letter != "T"]

    def nested(self) -> list[int]:
        """Layers that some tokens skip and others execute as D."""
        return [i for i, letter in enumerate(self.layer_layout) if letter == "S"]


def expand_layout(layout: str | list[str] | None, layers: int) -> str:
    """Letters for `layers` layers from a pattern's name, letters, or a list of letters."""
    if isinstance(layout, list):
        require(all(isinstance(x, str) for x in layout), "layer_layout: a list must hold one-letter strings")
        layout = "".join(x if len(x) == 1 else "?" for x in layout)
    if layout == "4attn":
        dense = {0, 1, layers // 2, layers // 2 + 1}
        return "".join("T" if i in dense else "D" for i in range(layers))
    if layout in PATTERNS:
        return (PATTERNS[layout] * layers)[:layers]
    return layout or ""


def _whole(shape: Shape, name: str, low: int) -> None:
    value = getattr(shape, name)
    require(
        isinstance(value, int) and not isinstance(value, bool) and value >= low, f"{name} must be a whole number >= {low}, not {value!r}"
    )


def _one_of(shape: Shape, name: str, allowed: tuple[str | None, ...]) -> None:
    value = getattr(shape, name)
    hint = "; it is `routing` that says token_choice or expert_choice" if name == "router_type" and str(value).endswith("_choice") else ""
    require(value in allowed, f"{name} must be one of {', '.join(str(a) for a in allowed if a)}, not {value!r}{hint}")


def _check_capacity(shape: Shape, name: str, needed: bool) -> None:
    value = getattr(shape, name)
    require(value is not None or not needed, f"{name} is needed with routing expert_choice")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(value is None or (number and 0 < value <= 1), f"{name} must be over 0 and at most 1, not {value!r}")


def _check_letters(shape: Shape) -> None:
    layout, layers = shape.layer_layout, shape.num_hidden_layers
    if shape.family in ("mod", "dllm"):
        extras = {"norm_method": "none", "router_type": "mlp", "routing": "token_choice"}
        for name, only in extras.items():
            require(getattr(shape, name) == only, f"{name} must be {only} for {shape.family}, not {getattr(shape, name)}")
        return
    require(len(layout) == layers, f"layer_layout has {len(layout)} letters for {layers} layers: {layout!r}")
    bad = sorted(set(layout) - set("TDS"))
    require(not bad, f"layer_layout has the letter {bad[0]!r}; T, D and S are known" if bad else "")
    require(shape.family != "dense" or set(layout) == {"T"}, f"layer_layout {layout!r} has routed layers, but the family is dense")


def check(shape: Shape) -> Shape:
    """The shape itself if it can be built; one line that names what cannot."""
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    for name in (*sizes, "max_position_embeddings", "router_dim", "router_d_state", "router_expand", "router_dt_rank"):
        _whole(shape, name, 1)
    _whole(shape, "head_dim", 2)
    _whole(shape, "router_d_conv", 2)
    require(shape.head_dim % 2 == 0, f"head_dim must be even, not {shape.head_dim}")
    groups = shape.num_attention_heads % shape.num_key_value_heads
    require(
        not groups, f"num_attention_heads {shape.num_attention_heads} is no multiple of num_key_value_heads {shape.num_key_value_heads}"
    )
    _one_of(shape, "family", FAMILIES)
    _one_of(shape, "norm_method", NORMS)
    _one_of(shape, "router_type", ("mlp", "mamba"))
    _one_of(shape, "routing", ("token_choice", "expert_choice"))
    _one_of(shape, "expert_choice_inference", (None, "exact", "threshold"))
    _check_letters(shape)
    expert = shape.routing == "expert_choice"
    require(expert or shape.expert_choice_inference is None, "expert_choice_inference has no meaning with routing token_choice")
    _check_capacity(shape, "attn_capacity", expert and bool(set(shape.layer_layout) & set("DS")))
    _check_capacity(shape, "exec_capacity", expert and "S" in shape.layer_layout)
    return shape


def _layout_of(raw: dict[str, Any], family: str, layers: int) -> str:
    if family == "mod":
        return "".join("M" if i % 2 else "T" for i in range(layers))
    if family == "dllm":
        return "T" * min(layers, 2) + "L" * max(layers - 2, 0)
    if raw.get("layer_layout") is not None:
        layout = expand_layout(raw["layer_layout"], layers)
        dense = raw.get("dtrnet_layers")
        same = dense is None or set(dense) == {i for i, letter in enumerate(layout) if letter == "T"}
        require(same, f"dtrnet_layers {dense} does not name the T layers of layer_layout {layout}")
        return layout
    if raw.get("dtrnet_layers") is None:
        return "T" * layers
    outside = [i for i in raw["dtrnet_layers"] if not 0 <= i < layers]
    require(not outside, f"dtrnet_layers names layer {outside[0] if outside else ''} of {layers}")
    return "".join("T" if i in raw["dtrnet_layers"] else "D" for i in range(layers))


def read(raw: dict[str, Any], family: str | None = None, where: str = "config.json") -> Shape:
    """A shape from the keys of config.json or of a YAML file's `model:`; unknown keys are refused."""
    kind = raw.get("model_type", "llama")
    require(kind == "llama", f"{where}: model_type {kind!r} is not one that is trained here; all of these are llama")
    known = {field.name for field in dataclasses.fields(Shape)}
    unknown = sorted(set(raw) - known - IGNORED)
    require(not unknown, f"{where}: unknown key {unknown[0] if unknown else ''!r}")
    given = {key: value for key, value in raw.items() if key in known and value is not None}
    missing = [f.name for f in dataclasses.fields(Shape) if f.default is dataclasses.MISSING and f.name not in given]
    require(not missing, f"{where}: {missing[0] if missing else ''} is missing")
    require(raw.get("hidden_act", "silu") == "silu", f"{where}: hidden_act must be silu")
    given["family"] = family = family or given.get("family") or "dtrnet"
    layers, heads = given["num_hidden_layers"], given["num_attention_heads"]
    require(isinstance(layers, int) and layers >= 1, f"{where}: num_hidden_layers must be a whole number >= 1, not {layers!r}")
    require(isinstance(heads, int) and heads >= 1, f"{where}: num_attention_heads must be a whole number >= 1, not {heads!r}")
    given.setdefault("num_key_value_heads", heads)
    given.setdefault("head_dim", given["hidden_size"] // heads)
    given["layer_layout"] = _layout_of(raw, family, layers)
    if given.get("router_dt_rank") in (None, "auto"):
        given["router_dt_rank"] = math.ceil(given.get("router_dim", 64) / 16)
    return check(Shape(**given))


def to_json(shape: Shape, dtype: str) -> dict[str, Any]:
    """config.json as the server reads it; keys with their defaults are left out where the published families do not have them."""
    out: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": dtype}
    default = {field.name: field.default for field in dataclasses.fields(Shape)}
    ultra = ("norm_method", "router_type", "router_dim", "router_d_state", "router_d_conv", "router_expand", "routing")
    optional = (*ultra, "attn_capacity", "exec_capacity", "expert_choice_inference")
    for name, value in dataclasses.asdict(shape).items():
        if name in ("family", "layer_layout", "router_dt_rank") or (name in optional and value == default[name]):
            continue
        out[name] = value
    if shape.router_type == "mamba":
        out["router_dt_rank"] = shape.router_dt_rank
    if shape.nested():
        out["layer_layout"] = shape.layer_layout
    elif shape.family == "dtrnet" and shape.routed():
        out["dtrnet_layers"] = [i for i, letter in enumerate(shape.layer_layout) if letter == "T"]
    return out
