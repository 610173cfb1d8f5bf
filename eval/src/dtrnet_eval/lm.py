"""The harness's model type `dtrnet`.

Requests go out as strings, grouped by context, so that neither tokenizer nor model files are needed on this side. The server splits
context and continuation as the harness's `hf` backend does, and cuts what is too long as that does; here it is counted.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm

from dtrnet_eval.client import Client, ServerError

log = logging.getLogger(__name__)

PAIRS_A_REQUEST = 256
BYTES_A_REQUEST = 1 << 20
PROMPTS_A_REQUEST = 32
DEFAULT_NEW_TOKENS = 256
NOT_SENT = {"until", "do_sample", "max_gen_toks", "max_new_tokens", "max_tokens", "max_length", "num_beams", "pad_token_id", "use_cache"}


def _whole(name: str, value: Any) -> int:
    """A model argument that must be a whole number.

    Raises:
        ServerError: it is not.
    """
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ServerError(f"{name} must be a whole number, but is {value!r}") from None


class RunTotals:
    """What a run has cost, added up from the usage of every answer."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.rows_routed: list[int] = []
        self.cost: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, usage: dict[str, Any], sequences: int) -> None:
        """Adds one answer's usage; a sequence rests on one position less than it has tokens."""
        self.counts["positions"] += usage.get("prompt_tokens", 0) - sequences
        for name, value in usage.items():
            if isinstance(value, int):
                self.counts[name] += value
        routed = usage.get("rows_routed") or []
        if len(self.rows_routed) < len(routed):
            self.rows_routed += [0] * (len(routed) - len(self.rows_routed))
        for layer, rows in enumerate(routed):
            self.rows_routed[layer] += rows
        for name, value in (usage.get("cost") or {}).items():
            self.cost[name] += value

    def summary(self) -> dict[str, Any]:
        """For the results file; `routed_share` is by layer, of all positions that the scored sequences rest on."""
        rows = self.counts["positions"]
        share = [round(routed / rows, 6) for routed in self.rows_routed] if rows else []
        seconds = {phase: round(value, 3) for phase, value in self.seconds.items()}
        return {**self.counts, "rows_routed": self.rows_routed, "routed_share": share, "cost": dict(self.cost), "seconds": seconds}


class DtrnetLM(LM):
    """A dtrnet server as a model of lm-evaluation-harness.

    Args:
        base_url: the server; a path such as /v1/completions is ignored.
        max_length: model positions a sequence may fill, as the `hf` backend counts; default and limit: the server's.
        num_concurrent: requests in flight.
        add_bos_token: puts BOS before every context that lacks it, as `hf` does when told so.
        max_gen_toks: tokens to generate where a task names no number.
        api_key: bearer token; default: $OPENAI_API_KEY.
        timeout: seconds for one answer.
        patience: seconds for which requests are tried again while the server is away.
        verify_certificate: False accepts any TLS certificate.
        ca_cert_path: file with certificates to trust.
        seed: for sampled generation.
        **_ignored: what the harness passes to every model (batch_size, device, ...); rows of a batch are the server's business.
    """

    latest: DtrnetLM | None = None  # the model made last, for harness versions that do not ask a model for its info

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        max_length: int | None = None,
        num_concurrent: int = 4,
        add_bos_token: bool = False,
        max_gen_toks: int = DEFAULT_NEW_TOKENS,
        api_key: str | None = None,
        timeout: float = 3600,
        patience: float = 300,
        verify_certificate: bool = True,
        ca_cert_path: str | None = None,
        seed: int = 1234,
        **_ignored: Any,
    ) -> None:
        super().__init__()
        verify = ca_cert_path or bool(verify_certificate)
        in_flight = _whole("num_concurrent", num_concurrent)
        self.client = Client(base_url, api_key=api_key, in_flight=in_flight, timeout_s=timeout, patience_s=patience, verify=verify)
        self.server = self.client.version()
        self.start_s, self.busy_s = time.monotonic(), self._engine_seconds()
        limit = self.server["max_model_len"]
        self.max_length = _whole("max_length", max_length) if max_length else limit
        if not 1 <= self.max_length <= limit:
            raise ServerError(f"max_length must be 1 to the server's limit of {limit} positions, but is {self.max_length}")
        self.add_bos = bool(add_bos_token)
        self.max_gen_toks = _whole("max_gen_toks", max_gen_toks)
        self.seed = _whole("seed", seed)
        self.truncated = 0
        self.totals = RunTotals()
        DtrnetLM.latest = self

    # ---- what the harness asks about a model ----

    @property
    def tokenizer_name(self) -> str:
        """Part of the key of the harness's request cache."""
        return f"dtrnet-{self.server['model_hash']}"

    def get_model_info(self) -> dict[str, Any]:
        """Goes into the results' `config`: the server, and what the run cost."""
        held = {name: value for name, value in self.client.metrics().items() if name.startswith("dtrnet_kv_rows")}
        run = {**self.totals.summary(), "truncated_requests": self.truncated, "max_length": self.max_length}
        run["seconds_in_engine"] = round(self._engine_seconds() - self.busy_s, 3)
        run["seconds_in_all"] = round(time.monotonic() - self.start_s, 3)
        return {"dtrnet_server": self.server, "dtrnet_run": run, "dtrnet_kv": held}

    def _engine_seconds(self) -> float:
        """Seconds that the server has spent in forward passes since its start."""
        return self.client.metrics().get("dtrnet_busy_seconds_total", 0.0)

    # ---- scores ----

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log probability, is greedy) of each (context, continuation), in the order given."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[request.args[0]].append(i)
        out: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        batches = list(self._batches(requests, groups))
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="loglikelihood")

        def keep(index: int, answer: dict[str, Any]) -> None:
            self.totals.add(answer["usage"], sum(map(len, batches[index])))
            for places, result in zip(batches[index], answer["results"], strict=True):
                for place, one in zip(places, result["continuations"], strict=True):
                    out[place] = (one["logprob"], one["is_greedy"])
                    self.truncated += one["truncated"] > 0
                    self.cache_hook.add_partial("loglikelihood", requests[place].args, out[place])
                bar.update(len(places))

        self._post_timed("loglikelihood", "/v1/loglikelihood", (self._score_body(requests, batch) for batch in batches), keep)
        bar.close()
        self._warn_truncated()
        return out

    @staticmethod
    def _batches(requests: list[Instance], groups: dict[str, list[int]]) -> Iterator[list[list[int]]]:
        """Groups of one context each, gathered into requests of bounded size; contexts that begin alike stay together."""
        batch: list[list[int]] = []
        pairs = size = 0
        for context in sorted(groups):
            for at in range(0, len(groups[context]), PAIRS_A_REQUEST):
                places = groups[context][at : at + PAIRS_A_REQUEST]
                cost = len(context) + sum(len(requests[i].args[1]) for i in places)
                if batch and (pairs + len(places) > PAIRS_A_REQUEST or size + cost > BYTES_A_REQUEST):
                    yield batch
                    batch, pairs, size = [], 0, 0
                batch.append(places)
                pairs += len(places)
                size += cost
        if batch:
            yield batch

    def _score_body(self, requests: list[Instance], batch: list[list[int]]) -> dict[str, Any]:
        asked = [{"context": requests[places[0]].args[0], "continuations": [requests[i].args[1] for i in places]} for places in batch]
        return {"requests": asked, "add_bos": self.add_bos, "max_length": self.max_length, "truncate": "left"}

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log probability of each whole text, in windows of max_length that score every token once."""
        out = [0.0] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="loglikelihood_rolling")

        def keep(index: int, answer: dict[str, Any]) -> None:
            self.totals.add(answer["usage"], answer["results"][0]["num_windows"])
            out[index] = answer["results"][0]["logprob"]
            self.cache_hook.add_partial("loglikelihood_rolling", requests[index].args, out[index])
            bar.update(1)

        bodies = ({"texts": [request.args[0]], "max_length": self.max_length} for request in requests)
        self._post_timed("loglikelihood_rolling", "/v1/loglikelihood_rolling", bodies, keep)
        bar.close()
        return out

    # ---- generation ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Text that follows each context, up to a stop string."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items(), key=lambda item: item[0]))].append(i)
        batches = [places[at : at + PROMPTS_A_REQUEST] for places in groups.values() for at in range(0, len(places), PROMPTS_A_REQUEST)]
        out = [""] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="generate_until")

        def keep(index: int, answer: dict[str, Any]) -> None:
            for name, value in answer.get("usage", {}).items():
                self.totals.counts[f"generation_{name}"] += value if isinstance(value, int) else 0
            for choice in answer["choices"]:
                place = batches[index][choice["index"]]
                out[place] = choice["text"]
                self.cache_hook.add_partial("generate_until", requests[place].args, out[place])
            bar.update(len(batches[index]))

        self._post_timed("generate_until", "/v1/completions", (self._generation_body(requests, batch) for batch in batches), keep)
        bar.close()
        self._warn_truncated()
        return out

    def _generation_body(self, requests: list[Instance], batch: list[int]) -> dict[str, Any]:
        given = dict(requests[batch[0]].args[1])
        until = given.get("until") or []
        new = next((int(given[k]) for k in ("max_gen_toks", "max_new_tokens", "max_tokens") if given.get(k)), self.max_gen_toks)
        body = {k: v for k, v in given.items() if k not in NOT_SENT}
        if not given.get("do_sample", "temperature" in given):
            body["temperature"] = 0
        body.setdefault("seed", self.seed)
        prompts = [self._prompt(requests[i].args[0], new) for i in batch]
        if any(isinstance(prompt, list) for prompt in prompts):
            prompts = [prompt if isinstance(prompt, list) else self._ids(prompt) for prompt in prompts]
        return {**body, "prompt": prompts, "max_tokens": new, "stop": [until] if isinstance(until, str) else list(until)}

    def _ids(self, text: str) -> list[int]:
        ids = self.client.post("/tokenize", {"prompt": text, "add_special_tokens": self.add_bos})["tokens"]
        self.totals.counts["tokenize_calls"] += 1
        return ids

    def _prompt(self, context: str, new: int) -> str | list[int]:
        """The context, or its last ids where it would not leave room for `new` tokens."""
        room = self.max_length - new
        if room < 1:
            raise ServerError(f"max_gen_toks {new} leaves no room for a prompt within max_length {self.max_length}")
        if not self.add_bos and 0 < len(context.encode()) < room:
            return context
        ids = self._ids(context)
        if not ids:
            bos = self.server.get("bos_token_id", -1)
            return [bos if bos >= 0 else self.server["eos_token_id"]]
        self.truncated += len(ids) > room
        return ids[-room:]

    # ---- shared ----

    def _post_timed(self, phase: str, path: str, bodies: Iterator[dict[str, Any]], keep: Any) -> None:
        start = time.monotonic()
        self.client.post_all(path, bodies, keep)
        self.totals.seconds[phase] += time.monotonic() - start

    def _warn_truncated(self) -> None:
        if self.truncated:
            log.warning("%d requests were longer than %d positions and were cut on the left", self.truncated, self.max_length)
