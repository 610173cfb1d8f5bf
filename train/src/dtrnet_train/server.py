"""What a running dtrnet server says: over HTTP, with the standard library only. A key comes from $DTRNET_API_KEY."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dtrnet_train.errors import fail, require


class Seen(NamedTuple):
    """One sequence of T + 1 ids, of which the first T were fed."""

    logprobs: np.ndarray  # [T] of each next token
    ways: np.ndarray  # [layers, T] of one character: 1 attends, 0 takes the linear path, - skips the layer
    probs: np.ndarray  # [2, layers, T] of the expensive choice: of attention (MoD, D-LLM: of the layer), and of execution; NaN if not asked


class Server:
    """One server by its address."""

    def __init__(self, url: str) -> None:
        require(url.startswith(("http://", "https://")), f"--server {url!r} is no http:// or https:// address")
        self.url = url.rstrip("/")

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if os.environ.get("DTRNET_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['DTRNET_API_KEY']}"
        request = urllib.request.Request(self.url + path, body and json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            fail(f"{self.url}{path} answers {error.code}: {' '.join(error.read().decode(errors='replace').split())[:300]}")
        except (urllib.error.URLError, OSError) as error:
            fail(f"no server at {self.url}: {getattr(error, 'reason', error)}")
        except ValueError:
            fail(f"{self.url}{path} does not answer in JSON; is it a dtrnet server?")

    def version(self) -> dict[str, Any]:
        """The server, its model, and how it computes."""
        info = self._ask("/version")
        require(isinstance(info, dict) and "model_hash" in info, f"{self.url}/version has no model_hash; is it a dtrnet server?")
        return info

    def score(self, ids: np.ndarray) -> Seen:
        """Log probabilities and decisions for the sequence that begins with ids[0]."""
        ask = {"context": [int(ids[0])], "continuations": [[int(i) for i in ids[1:]]]}
        answer = self._ask("/v1/loglikelihood", {"requests": [ask], "tokens": True, "truncate": False})
        one = answer["results"][0]["continuations"][0]
        layers = self._ask("/v1/routing", {"text": [int(i) for i in ids[:-1]], "top_logprobs": 0})["layers"]
        none = [None] * (len(ids) - 1)
        probs = np.array([[layer.get(name) or none for layer in layers] for name in ("p", "s0")], float)
        return Seen(np.array(one["token_logprobs"]), np.array([list(layer["routing"]) for layer in layers]), probs)


def checkpoint_hash(folder: Path) -> str:
    """As the server names a checkpoint: SHA-256 over config.json and the weight files in the order of their names."""
    digest = hashlib.sha256()
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    for name in ("config.json", *sorted(names)):
        with (folder / name).open("rb") as file:
            while part := file.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()
