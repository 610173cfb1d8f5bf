"""Checks a folder of results against its seal, against itself, and by scoring some of its items again on a server.

Which items are scored again follows from the digest of the results, so nobody can choose them beforehand. Servers of one portable numerics
class (float32: docs/portable-float32.md) owe equal bits on any device and in any version, others where class, dtype, device and version are
one; else scores are compared within what docs/numerics.md publishes.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtrnet_eval import access, origin, results, rowcheck, sealing
from dtrnet_eval.access import Access
from dtrnet_eval.answers import Score, ServerInfo
from dtrnet_eval.errors import EvalError, ResultsError, UsageError
from dtrnet_eval.pool import Pool
from dtrnet_eval.results import Results
from dtrnet_eval.sealing import Scored

# A token's log probability: the most that two servers may differ, and the most in the mean over all tokens that were scored again.
# Twice the figures of docs/numerics.md, since each may err.
BOUNDS = {"f32": 4e-4, "f16": 0.12, "bf16": 1.1}
MEAN_BOUNDS = {"f32": 2e-5, "f16": 0.011, "bf16": 0.016}
SAME_BITS = ("dtype", "numerics_class", "device", "version", "commit")
# What a server may differ in and still be the same model with the same setting.
MAY_DIFFER = {*SAME_BITS, "build"}


class VerifyError(EvalError):
    """Results are not what they claim to be."""


@dataclass(frozen=True)
class Again:
    """One request scored again."""

    old: Scored
    value: float | str
    greedy: bool | None
    tokens: int

    def differs(self) -> bool:
        """Not the same to the bit."""
        return self.value != self.old.value or (self.greedy is not None and self.greedy != self.old.greedy)

    def a_token(self) -> float:
        """Difference for each token."""
        if isinstance(self.value, str) or isinstance(self.old.value, str):
            return 0.0
        return abs(self.value - self.old.value) / max(1, self.tokens)

    def place(self) -> str:
        """For a person."""
        return f"item {self.old.item[0]} of {self.old.task}, request {self.old.request}: {self.old.value!r} there, {self.value!r} here"


class Tokens:
    """Observes scores: tokens of each pair."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], int] = {}

    def add(self, pair: tuple[str, str], score: Score) -> None:
        """One scored pair."""
        self.of[pair] = score.num_tokens


# ---- against the seal and itself ----


def check_seal(model: Results, lines: list[str], printed: str | None) -> str:
    """The digest of the results as they are.

    Raises:
        VerifyError: it is not that of the seal beside them, or not the one that was printed.
    """
    digest = sealing.digest_of(lines)
    sealed = model.folder / sealing.SEAL
    if sealed.is_file():
        try:
            claimed = str(json.loads(sealed.read_text())["digest"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{sealed}: not as this version writes it ({type(error).__name__})") from None
        if claimed != digest:
            raise VerifyError(f"not what was sealed: {claimed[:16]} there, {digest[:16]} of the files{_first_change(model, lines)}")
    if printed and printed != digest:
        raise VerifyError(f"not the results of that digest: {printed[:16]} was printed, {digest[:16]} is of the files")
    return digest


def _first_change(model: Results, lines: list[str]) -> str:
    try:
        before = (model.folder / sealing.LINES).read_text().splitlines()
    except OSError:
        return ""
    changed = next((new for old, new in zip(before, lines) if old != new), None)
    return f"; the first that differs: {changed[:200]}" if changed else f"; {len(before)} lines there, {len(lines)} here"


def check_means(model: Results) -> None:
    """That a task's reported accuracy is the mean of its items.

    Raises:
        VerifyError: it is not.
    """
    for task, items in model.samples.items():
        for metric in results.PAIRED:
            value = model.tasks.get(task, {}).get(metric)
            each = [sample.metrics[metric] for sample in items.values() if metric in sample.metrics]
            if value and each and abs(sum(each) / len(each) - value.value) > 1e-9:
                raise VerifyError(f"{task}: {metric} is reported as {value.value}, but its {len(each)} items give {sum(each) / len(each)}")


# ---- against a server ----


def check_server(model: Results, info: ServerInfo) -> bool:
    """True if the server owes equal bits.

    Raises:
        VerifyError: it serves another model, or the model in another setting.
    """
    record = model.origin
    if record is None:
        raise ResultsError(f"{model.folder}: the results have no record of origin")
    now = origin.Origin(info.raw)
    if record.info.model_hash != info.model_hash:
        raise VerifyError(f"not this model: {record.info.model_hash[:12]} there, the server has {info.model_hash[:12]}")
    settings = {name: value for name, value in record.settings().items() if name not in MAY_DIFFER}
    if settings.get("max_model_len", 0) <= info.max_model_len:  # what a run used of it is asked for again
        settings.pop("max_model_len", None)
    differs = origin.differences(settings, now.settings())
    if differs:
        raise VerifyError(f"not this setting: {'; '.join(differs)}")
    portable = info.numerics_class.startswith("portable-")
    names = ("numerics_class",) if portable else SAME_BITS
    return record.client == "dtrnet" and all(record.server.get(name) == info.raw.get(name) for name in names)


def pick(scores: list[Scored], digest: str, items: int) -> list[Scored]:
    """All requests of some items; which, follows from the digest."""
    every = sorted({(score.task, score.item) for score in scores})
    chosen = set(random.Random(int(digest, 16)).sample(every, min(items, len(every))))
    return [score for score in scores if (score.task, score.item) in chosen]


def _settings(model: Results, task: str) -> dict[str, Any]:
    run = model.runs.get(model.sample_runs.get(task, ""))
    kept = run.cost.get("settings") if run else None
    return dict(kept) if isinstance(kept, dict) else {}


def _ask(server: Access, settings: dict[str, Any], scores: list[Scored]) -> list[Again]:
    """Through the plugin, as the run did."""
    from lm_eval.api.instance import Instance

    from dtrnet_eval.lm import DtrnetLM

    tls = {"verify_certificate": server.verify_certificate, "ca_cert_path": server.ca_cert_path}
    plugin = DtrnetLM(server.base_url, api_key_file=server.api_key_file, **tls, **settings)
    plugin.observers.append(tokens := Tokens())
    out = []
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        mine = [score for score in scores if score.kind == kind]
        asked = [Instance(request_type=kind, doc={}, arguments=score.arguments, idx=i) for i, score in enumerate(mine)]
        for score, said in zip(mine, getattr(plugin, kind)(asked, disable_tqdm=True) if asked else []):
            value, greedy = said if kind == "loglikelihood" else (said, None)
            count = tokens.of.get(score.arguments, 1) if kind == "loglikelihood" else len(str(score.arguments[0]).split())
            out.append(Again(score, value, greedy, count))
    return out


def score_again(model: Results, server: Access, scores: list[Scored]) -> list[Again]:
    """All of them, task by task, with the settings of the run that they are of."""
    out: list[Again] = []
    for settings in {json.dumps(_settings(model, score.task), sort_keys=True): None for score in scores}:
        mine = [score for score in scores if json.dumps(_settings(model, score.task), sort_keys=True) == settings]
        out += _ask(server, json.loads(settings), mine)
    return out


def judge(again: list[Again], exact: bool, dtypes: set[str]) -> str:
    """What was found, for a person.

    Raises:
        VerifyError: an item differs by more than it may.
    """
    different = [one for one in again if one.differs()]
    if not different:
        return "the same to the bit"
    worst = max(different, key=Again.a_token)
    if exact:
        raise VerifyError(f"{len(different)} of {len(again)} scores differ, where bits must be equal: {different[0].place()}")
    bound, mean_bound = (max(table.get(dtype, table["bf16"]) for dtype in dtypes) for table in (BOUNDS, MEAN_BOUNDS))
    mean = sum(one.a_token() * one.tokens for one in again) / sum(one.tokens for one in again)
    if worst.a_token() > bound or mean > mean_bound:
        where = f"{worst.a_token():.2g} a token at most (may be {bound:g}), {mean:.2g} in the mean (may be {mean_bound:g})"
        raise VerifyError(f"scores differ by more than another class of numerics explains: {where}; {worst.place()}")
    texts = sum(isinstance(one.value, str) for one in different)
    note = f"; {texts} generated texts are others" if texts else ""
    return f"within the bound of another class of numerics: {worst.a_token():.2g} a token at most, {mean:.2g} in the mean{note}"


def main(arguments: list[str]) -> int:
    """`dtrnet-eval verify`."""
    parser = argparse.ArgumentParser("dtrnet-eval verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results of one model, with samples")
    access.add_arguments(parser)
    parser.add_argument("--items", type=int, default=50, help="how many are scored again (%(default)s)")
    parser.add_argument("--include_path", type=Path, help="folder of the task files (the package's own)")
    parser.add_argument("--digest", help="one that was printed, in place of or beside the folder's seal")
    args = parser.parse_args(arguments)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if args.items < 1:
        raise UsageError(f"--items must be at least 1, but is {args.items}")
    model = results.read(args.folder)
    scores = sealing.scores_of(model)
    digest = check_seal(model, sealing.lines_of(model, scores), args.digest)
    check_means(model)
    server = access.of_arguments(args)
    info = Pool(server).version()
    exact = check_server(model, info)
    chosen = pick(scores, digest, args.items)
    found = judge(score_again(model, server, chosen), exact, {info.dtype, model.origin.info.dtype if model.origin else ""})
    items = sorted({(score.task, score.item) for score in chosen})
    print(
        f"{digest}\n{len(items)} items, {len(chosen)} requests scored again on {info.device} {info.dtype}, {info.numerics_class}: {found}"
    )
    print(rowcheck.check(model, items, args.include_path))
    return 0
