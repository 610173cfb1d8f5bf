"""The model: embedding, layers, norm, head; how it starts; reading a checkpoint. Parameter names are the checkpoint's tensor names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dtrnet_train import shape as shapes
from dtrnet_train.attention import RMSNorm, frequencies
from dtrnet_train.errors import require
from dtrnet_train.layers import Layer, Practice, Record, make_layer
from dtrnet_train.routers import DllmRouter, MambaRouter
from dtrnet_train.rows import Rows
from dtrnet_train.shape import Shape

NO_TARGET = -100
LOSS_ROWS = 8192  # rows whose logits exist at once when each row's loss is wanted


class Body(nn.Module):
    """What the checkpoint calls `model`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(make_layer(shape, i) for i in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)


def token_losses(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Negative log likelihood in float32; rows with NO_TARGET count as 0."""
    return F.cross_entropy(logits.float(), targets, ignore_index=NO_TARGET, reduction=reduction)


class Model(nn.Module):
    """Weights are float32; activations have `dtype`; routers compute in float32 whatever it is."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape, self.dtype, self.checkpointing = shape, dtype, False
        self.model = Body(shape)
        if not shape.tie_word_embeddings:
            self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        frequency, self.factor = frequencies(shape)
        self.register_buffer("frequency", frequency, persistent=False)

    def turn(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every row's rotation."""
        angle = rows.position.float()[:, None] * self.frequency
        return torch.cos(angle) * self.factor, torch.sin(angle) * self.factor

    def logits(self, x: Tensor) -> Tensor:
        """x [n, H], the last layer's output -> [n, V]."""
        head = self.model.embed_tokens if self.shape.tie_word_embeddings else self.lm_head
        return F.linear(self.model.norm(x), head.weight.to(x.dtype))

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """The sum of the rows' losses."""
        return token_losses(self.logits(x), targets, "sum")

    def run(self, tokens: Tensor, rows: Rows) -> tuple[list[Tensor], list[Record]]:
        """tokens [N] int64 -> the residual stream before each layer and after the last, and what each layer's routers said."""
        x, turn = self.model.embed_tokens(tokens).to(self.dtype), self.turn(rows)
        stream, records = [x], []
        for layer in self.model.layers:
            if self.checkpointing and self.training:
                x, record = checkpoint(layer, x, rows, turn, use_reentrant=False)
            else:
                x, record = layer(x, rows, turn)
            stream.append(x)
            records.append(record)
        return stream, records

    def forward(self, tokens: Tensor, rows: Rows, targets: Tensor, by_row: bool = False) -> tuple[Tensor, list[Record]]:
        """The sum of the rows' losses or each row's, and the records: one call, as data parallel wrappers want it."""
        stream, records = self.run(tokens, rows)
        x = stream[-1]
        if not by_row:
            return self.loss(x, targets), records
        parts = zip(x.split(LOSS_ROWS), targets.split(LOSS_ROWS))
        return torch.cat([token_losses(self.logits(part), wanted, "none") for part, wanted in parts]), records

    def compile(self, backend: str = "inductor") -> None:
        """One graph a kind of layer instead of one a model: seconds instead of minutes."""
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
        for layer in self.model.layers:
            # The method and not the module, so that hooks of FSDP run outside the graph.
            layer.forward = torch.compile(layer.forward, fullgraph=True, dynamic=False, backend=backend)
        self.loss = torch.compile(self.loss, fullgraph=True, dynamic=False, backend=backend)

    def practise(self, practice: Practice) -> None:
        """Sets what training does to selection."""
        for layer in self.model.layers:
            layer.practice = practice

    def routed_layers(self) -> list[tuple[int, Layer]]:
        """D and S layers with their numbers."""
        return [(i, layer) for i, layer in enumerate(self.model.layers) if isinstance(layer, Layer) and layer.letter != "T"]

    def routers(self) -> list[tuple[int, str, nn.Module]]:
        """(layer, name, module) of every D and S router."""
        return [(i, name, router) for i, layer in self.routed_layers() for name, router in layer.routers().items()]


def attends(record: Record, letter: str, like: Tensor) -> Tensor:
    """[N] bool: rows that leave keys and values in this layer."""
    if letter in "TL":
        return torch.ones(len(like), dtype=torch.bool, device=like.device)
    return (record.execute if letter == "M" else record.attend).chosen


def executes(record: Record, like: Tensor) -> Tensor:
    """[N] bool: rows that this layer changes."""
    return torch.ones(len(like), dtype=torch.bool, device=like.device) if record.execute is None else record.execute.chosen


# ---- initial values ----


def _std(name: str, shape: Shape) -> float:
    """Normal everywhere; output projections smaller for pre-norm and HybridNorm; LNS wants no scaling."""
    into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
    depth = math.sqrt(2 * shape.num_hidden_layers) if into_stream and shape.norm_method != "lns" else 1.0
    base = math.sqrt(2 / (5 * shape.hidden_size)) if shape.norm_method.startswith("hybridnorm") else 0.02
    return base / depth


@torch.no_grad()
def start(model: Model, router_bias: float = 0.4) -> None:
    """Initial values for every parameter, from torch's generator. Routers start by choosing everything."""
    for name, p in model.named_parameters():
        if name.endswith(("norm.weight", "layernorm.weight")):
            p.fill_(1)
        elif name.endswith("bias"):
            p.zero_()
        elif ".mixer." not in name:
            std = _std(name, model.shape)
            nn.init.trunc_normal_(p, std=std, a=-3 * std, b=3 * std)
    for module in model.modules():
        if isinstance(module, MambaRouter):
            module.start()
        if isinstance(module, DllmRouter):
            module.linear_2.bias.copy_(torch.tensor([0.1, 2.0]))  # as published
    for _, _, router in model.routers():
        router.last.bias.copy_(torch.tensor([router_bias, -router_bias]))


# ---- checkpoints ----


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the tensors, all of them there."""
    index = folder / "model.safetensors.index.json"
    try:
        names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    except (ValueError, KeyError, AttributeError):
        names = set()
    require(names, f"{index}: has no weight_map")
    for name in sorted(names):
        require((folder / name).is_file(), f"{folder}: {name} is missing")
    return [folder / name for name in sorted(names)]


def _tensor_names(folder: Path) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for path in _weight_files(folder):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    return names


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        try:
            tensors.update(load_file(path))
        except SafetensorError as error:
            require(False, f"{path}: not a safetensors file: {error}")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _family(names: set[str]) -> str:
    if any(".expert1." in name for name in names):
        return "mod"
    return "dllm" if any(".router.linear_1." in name for name in names) else "dtrnet"


def load_weights(model: Model, tensors: dict[str, Tensor], where: object) -> None:
    """Copies tensors into the model; names and shapes must agree."""
    tensors = dict(tensors)
    for i, name, router in model.routers():
        router.threshold = tensors.pop(f"model.layers.{i}.{name}.threshold", None)
    given = sum(router.threshold is not None for _, _, router in model.routers())
    require(given in (0, len(model.routers())), f"{where}: some routers have a threshold and some have none")
    require(not given or model.shape.routing == "expert_choice", f"{where}: thresholds have no meaning with routing token_choice")
    if model.shape.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    own = {name: p for name, p in model.state_dict().items() if not name.endswith(".threshold")}
    for name in sorted(set(own) ^ set(tensors)):
        require(name in tensors, f"{where}: the tensor {name} is missing")
        require(name in own, f"{where}: the tensor {name} has no place in this model")
    for name, p in own.items():
        shape, wanted = list(tensors[name].shape), list(p.shape)
        require(shape == wanted, f"{where}: {name} has the shape {shape}, the model wants {wanted}")
        p.copy_(tensors[name])


def _shape_for(folder: Path, names: set[str]) -> Shape:
    config = folder / "config.json"
    require(config.is_file(), f"{folder} is no checkpoint: it has no config.json")
    try:
        raw = json.loads(config.read_text())
    except ValueError:
        raw = None
    require(isinstance(raw, dict), f"{config}: not a JSON object")
    return shapes.read(raw, _family(names), str(config))


def load_shape(folder: Path | str) -> Shape:
    """A checkpoint's shape without its weights."""
    folder = Path(folder)
    return _shape_for(folder, _tensor_names(folder))


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> Model:
    """A model from a checkpoint directory as the server reads it, in evaluation mode on the CPU."""
    folder = Path(folder)
    require((folder / "config.json").is_file(), f"{folder} is no checkpoint: it has no config.json")
    tensors = _read_tensors(folder)
    model = Model(_shape_for(folder, set(tensors)), dtype)
    with torch.no_grad():
        load_weights(model, tensors, folder)
    return model.eval()
