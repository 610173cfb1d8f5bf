"""The harness's model type `dtrnet`.

Requests go out as strings, grouped by context, so that neither tokenizer nor model files are needed on this side. The server splits
context and continuation as the harness's `hf` backend does, and cuts what is too long as that does; here it is counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm

from dtrnet_eval import batches, modelargs
from dtrnet_eval.access import Access
from dtrnet_eval.answers import CompletionAnswer, RollingAnswer, Score, ScoreAnswer, TokensAnswer, Usage
from dtrnet_eval.errors import UsageError
from dtrnet_eval.itemrouting import ItemRouting
from dtrnet_eval.pool import Pool
from dtrnet_eval.totals import RunTotals

T = TypeVar("T")
log = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS = 256
PATHS = {"loglikelihood": "/v1/loglikelihood", "loglikelihood_rolling": "/v1/loglikelihood_rolling", "generate_until": "/v1/completions"}
NOT_SENT = {"until", "do_sample", "max_gen_toks", "max_new_tokens", "max_tokens", "max_length", "num_beams", "pad_token_id", "use_cache"}


class Observer(Protocol):
    """Sees every scored pair."""

    def add(self, pair: tuple[str, str], score: Score) -> None:
        """Context and continuation, and what the server said."""


class DtrnetLM(LM):
    """A dtrnet server as a model of lm-evaluation-harness.

    Args:
        base_url: the server, or several that serve the same (`http://a:8000+http://b:8000`); a path such as /v1/completions is ignored.
        max_length: model positions a sequence may fill, as the `hf` backend counts; default and limit: the server's.
        num_concurrent: requests in flight at each server, for each of its devices, and for each server behind a balancer.
        add_bos_token: puts BOS before every context that lacks it, as `hf` does when told so.
        max_gen_toks: tokens to generate where a task names no number.
        api_key_file: file with the server's key; default: $DTRNET_API_KEY, else $OPENAI_API_KEY.
        timeout: seconds for one answer.
        patience: seconds for which requests are tried again while the server is away.
        verify_certificate: False accepts any TLS certificate.
        ca_cert_path: file with certificates to trust.
        seed: for sampled generation.
        routing_file: writes each scored pair's share of attending rows by layer into this file, for the report's items.
        **others: what the harness passes to every model; any other name is an error.
    """

    latest: DtrnetLM | None = None  # the model made last, for harness versions that do not ask a model for its info

    def __init__(
        self,
        base_url: str = Access.base_url,
        max_length: int | None = None,
        num_concurrent: int = 4,
        add_bos_token: bool = False,
        max_gen_toks: int = DEFAULT_NEW_TOKENS,
        api_key_file: str | None = None,
        timeout: float = 3600,
        patience: float = 300,
        verify_certificate: bool = True,
        ca_cert_path: str | None = None,
        seed: int = 1234,
        routing_file: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        modelargs.refuse_unknown(others, DtrnetLM.__init__)
        access = Access(str(base_url), api_key_file, modelargs.flag("verify_certificate", verify_certificate), ca_cert_path)
        how = {"timeout_s": modelargs.seconds("timeout", timeout), "patience_s": modelargs.seconds("patience", patience)}
        self.client = Pool(access, in_flight=modelargs.whole("num_concurrent", num_concurrent, 1), **how)
        self.server = self.client.version()
        self.start_s, self.engine = time.monotonic(), self._engine()
        limit = self.server.max_model_len
        self.max_length = limit if max_length is None else modelargs.whole("max_length", max_length)
        if not 1 <= self.max_length <= limit:
            raise UsageError(f"max_length must be 1 to the server's limit of {limit} positions, but is {self.max_length}")
        self.add_bos = modelargs.flag("add_bos_token", add_bos_token)
        self.max_gen_toks = modelargs.whole("max_gen_toks", max_gen_toks, 1)
        self.seed = modelargs.whole("seed", seed)
        self.routing = routing_file is not None
        self.observers: list[Observer] = [ItemRouting(routing_file)] if routing_file else []
        self.truncated = 0
        self.totals = RunTotals()
        DtrnetLM.latest = self

    # ---- what the harness asks about a model ----

    @property
    def tokenizer_name(self) -> str:
        """Part of the key of the harness's request cache."""
        return f"dtrnet-{self.server.model_hash}"

    def get_model_info(self) -> dict[str, Any]:
        """Goes into the results' `config`: what the run cost."""
        held = {name: value for name, value in self.client.metrics().items() if name.startswith("dtrnet_kv_") and name.endswith("_rows")}
        run = {**self.totals.summary(), "truncated_requests": self.truncated, "settings": self.settings()}
        if self.client.several:
            run["answers_by_server"] = [member.answers for member in self.client.members]
        begin, end = self.engine, self._engine()
        if begin["process_start_time_seconds"] == end["process_start_time_seconds"]:  # the same servers, none of them started again
            run["seconds_in_engine"] = round(end["dtrnet_busy_seconds_total"] - begin["dtrnet_busy_seconds_total"], 3)
        run["seconds_in_all"] = round(time.monotonic() - self.start_s, 3)
        return {"dtrnet_run": run, "dtrnet_kv": held}

    def settings(self) -> dict[str, Any]:
        """What of the model arguments decides answers."""
        return {name: getattr(self, name) for name in ("max_length", "max_gen_toks", "seed")} | {"add_bos_token": self.add_bos}

    def _engine(self) -> dict[str, float]:
        """Seconds in forward passes since the server's start, and when that was. Behind a balancer another server may answer each time."""
        found = self.client.metrics()
        return {name: found.get(name, 0.0) for name in ("dtrnet_busy_seconds_total", "process_start_time_seconds")}

    # ---- scores ----

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log probability, is greedy) of each (context, continuation), in the order given."""
        pairs = [request.args for request in requests]
        groups = list(batches.by_context(pairs, self.client.servers))
        out: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="loglikelihood")

        def keep(index: int, answer: ScoreAnswer) -> None:
            for places, scores in zip(groups[index], answer.results, strict=True):
                for place, score in zip(places, scores, strict=True):
                    out[place] = (score.logprob, score.is_greedy)
                    self.truncated += score.truncated > 0
                    self.cache_hook.add_partial("loglikelihood", pairs[place], out[place])
                    for observer in self.observers:
                        observer.add(pairs[place], score)
                bar.update(len(places))
            places = [place for group in groups[index] for place in group]
            self.answered("loglikelihood", {place: out[place] for place in places}, answer.usage, len(places))

        self._post_timed("loglikelihood", len(groups), lambda index: self._score_body(pairs, groups[index]), ScoreAnswer.read, keep)
        bar.close()
        self._warn_truncated()
        return out

    def _score_body(self, pairs: list[tuple[str, str]], batch: list[list[int]]) -> dict[str, Any]:
        asked = [{"context": pairs[places[0]][0], "continuations": [pairs[place][1] for place in places]} for places in batch]
        body = {"requests": asked, "add_bos": self.add_bos, "max_length": self.max_length, "truncate": "left"}
        return body | ({"routing": True} if self.routing else {})

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log probability of each whole text, in windows of max_length that score every token once."""
        out = [0.0] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="loglikelihood_rolling")

        def keep(index: int, answer: RollingAnswer) -> None:
            out[index] = answer.results[0].logprob
            self.cache_hook.add_partial("loglikelihood_rolling", requests[index].args, out[index])
            bar.update(1)
            self.answered("loglikelihood_rolling", {index: out[index]}, answer.usage, answer.results[0].num_windows)

        def body(index: int) -> dict[str, Any]:
            return {"texts": [requests[index].args[0]], "max_length": self.max_length}

        self._post_timed("loglikelihood_rolling", len(requests), body, RollingAnswer.read, keep)
        bar.close()
        return out

    # ---- generation ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Text that follows each context, up to a stop string."""
        groups = batches.by_settings([request.args for request in requests], self.client.servers)
        out = [""] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="generate_until")

        def keep(index: int, answer: CompletionAnswer) -> None:
            for choice in answer.choices:
                place = groups[index][choice.index]
                out[place] = choice.text
                self.cache_hook.add_partial("generate_until", requests[place].args, out[place])
            bar.update(len(groups[index]))
            self.answered("generate_until", {place: out[place] for place in groups[index]}, answer.usage, 0)

        self._post_timed(
            "generate_until", len(groups), lambda index: self._generation_body(requests, groups[index]), CompletionAnswer.read, keep
        )
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
        self.totals.counts["tokenize_calls"] += 1
        return self.client.ask("/tokenize", {"prompt": text, "add_special_tokens": self.add_bos}, TokensAnswer.read).tokens

    def _prompt(self, context: str, new: int) -> str | list[int]:
        """The context, or its last ids where it would not leave room for `new` tokens."""
        room = self.max_length - new
        if room < 1:
            raise UsageError(f"max_gen_toks {new} leaves no room for a prompt within max_length {self.max_length}")
        if not self.add_bos and 0 < len(context.encode()) < room:
            return context
        ids = self._ids(context)
        if not ids:
            return [self.server.bos if self.server.bos >= 0 else self.server.eos]
        self.truncated += len(ids) > room
        return ids[-room:]

    # ---- shared ----

    def answered(self, kind: str, values: dict[int, Any], usage: Usage, sequences: int) -> None:
        """Counts one answer; called once for each, in one thread.

        Args:
            kind: as the harness calls it.
            values: what the harness gets, by the request's place in the call.
            usage: what the answer cost.
            sequences: that were scored for it; 0 for generation.
        """
        self.totals.count(kind, usage, sequences)

    def _post_timed(
        self, phase: str, count: int, make: Callable[[int], Any], read: Callable[[Any], T], keep: Callable[[int, T], None]
    ) -> None:
        start = time.monotonic()
        self.client.ask_all(PATHS[phase], count, make, read, keep)
        self.totals.seconds[phase] += time.monotonic() - start

    def _warn_truncated(self) -> None:
        if self.truncated:
            log.warning("%d requests were longer than %d positions and were cut on the left", self.truncated, self.max_length)
