"""`sweep --servers`: a suite over servers that run already, whatever they serve.

Servers that say the same of themselves (model, dtype, settings) share the work: pool.py gives each neighbours and moves the work of one
that dies to the others. Answers are written down as they come, so that the same command goes on behind the last one, and the results of
each model lie in one folder. Models are asked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from dtrnet_eval import origin, shardrun, suites
from dtrnet_eval.access import Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.client import Client
from dtrnet_eval.errors import EvalError, UnreachableError, UsageError
from dtrnet_eval.merge import merge
from dtrnet_eval.pool import SEPARATOR
from dtrnet_eval.shards import Shard
from dtrnet_eval.suites import Suite

WHOLE = Shard(1, 1)


@dataclass
class Group:
    """Servers that serve the same.

    Attributes:
        info: what they say.
        urls: where they are.
        name: of the folder of their results.
    """

    info: ServerInfo
    urls: list[str] = field(default_factory=list)
    name: str = ""


def _same(a: ServerInfo, b: ServerInfo) -> bool:
    return not origin.differences(origin.Origin(a.raw).settings(), origin.Origin(b.raw).settings())


def groups_of(found: Sequence[tuple[str, ServerInfo]]) -> list[Group]:
    """Servers by what they serve, in the order given. A folder has the model's name, and its hash where two have that name.

    Raises:
        UsageError: two groups are of one model with different settings.
    """
    out: list[Group] = []
    for url, info in found:
        group = next((one for one in out if _same(one.info, info)), None)
        if group is None:
            out.append(group := Group(info))
        group.urls.append(url)
    names = [group.info.model for group in out]
    for group in out:
        group.name = group.info.model if names.count(group.info.model) == 1 else f"{group.info.model}-{group.info.model_hash[:8]}"
    if len({group.name for group in out}) < len(out):
        twice = next(group for group in out if [one.name for one in out].count(group.name) > 1)
        raise UsageError(f"one model with different settings ({', '.join(twice.urls)} and others): sweep them into folders of their own")
    return out


def _ask(servers: Access) -> list[tuple[str, ServerInfo]]:
    """What each says; who is away is left out.

    Raises:
        UnreachableError: all are.
    """
    urls = [url.strip() for url in servers.base_url.split(SEPARATOR)]
    if len(set(urls)) < len(urls):
        raise UsageError("--servers names a server twice")
    found, last = [], None
    for url in urls:
        try:
            found.append((url, Client(replace(servers, base_url=url)).version(5)))
        except UnreachableError as error:
            last = error
            print(f"{error}; left out", flush=True)
    if last and not found:
        raise last
    return found


def _sweep_one(suite: Suite, group: Group, servers: Access, output: Path, extra: list[str]) -> None:
    """One model."""
    out = output / group.name
    suites.check_server(suite, group.info)
    suites.check_origin(suite, out, group.info, extra)
    if not all(suites.finished(suite, run, out, extra) for run in suite.runs):
        shardrun.run_shard(suite, replace(servers, base_url=SEPARATOR.join(group.urls)), out, extra, WHOLE)
        merge(suite, out)


def sweep(suite: Suite, servers: Access, output: Path, extra: list[str]) -> int:
    """All models.

    Raises:
        EvalError: some are not finished; the same command goes on.
    """
    groups = groups_of(_ask(servers))
    for group in groups:
        print(f"{group.name}: {len(group.urls)} servers, {', '.join(group.urls)}", flush=True)
    failed = []
    with ThreadPoolExecutor(len(groups)) as threads:
        runs = [(group, threads.submit(_sweep_one, suite, group, servers, output, extra)) for group in groups]
        for group, run in runs:
            try:
                run.result()
                print(f"{group.name}: finished", flush=True)
            except EvalError as error:
                failed.append(group.name)
                print(f"{group.name}: {error}", flush=True)
    if failed:
        raise EvalError(f"{len(failed)} of {len(groups)} models are not finished: {', '.join(failed)}; start the same command to go on")
    return 0
