"""AdamW, and Muon for the matrices with AdamW for the rest; learning rates by step."""

from __future__ import annotations

import math

import torch
from torch import nn

from dtrnet_train.config import Train

NO_DECAY = ("A_log", ".D", "bias", "norm.weight", "embed_tokens.weight")


def _decays(name: str, p: nn.Parameter) -> bool:
    return p.dim() >= 2 and not name.endswith(NO_DECAY)


def make(model: nn.Module, train: Train) -> list[torch.optim.Optimizer]:
    """Optimizers over all parameters. Matrices decay; norms, biases, embeddings and the Mamba routers' A, D do not."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if _decays(name, p)]
    others = [p for name, p in named if not _decays(name, p)]
    common = {"lr": train.learning_rate, "betas": tuple(train.betas), "eps": train.epsilon, "fused": True}
    if train.optimizer == "muon":
        square = [p for name, p in named if _decays(name, p) and p.dim() == 2 and "router" not in name and "lm_head" not in name]
        ids = {id(p) for p in square}
        rest = [{"params": [p for p in matrices if id(p) not in ids], "weight_decay": train.weight_decay}]
        muon = torch.optim.Muon(square, lr=train.learning_rate, weight_decay=train.weight_decay, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW([*rest, {"params": others, "weight_decay": 0.0}], **common)]
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [torch.optim.AdamW([g for g in groups if g["params"]], **common)]


def learning_rate(train: Train, step: int, steps: int) -> float:
    """Linear warmup, then a cosine to the final rate, or constant."""
    warm = max(1, round(train.warmup * steps))
    if step < warm:
        return train.learning_rate * (step + 1) / warm
    if train.schedule == "constant":
        return train.learning_rate
    done = (step - warm) / max(1, steps - warm)
    return train.final_learning_rate + (train.learning_rate - train.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * done))
