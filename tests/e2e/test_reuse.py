"""Rows that prefix reuse saves, and KV rows held: counted, never timed.

Four continuations of 10 tokens after one context of 400 cost at most a third of the rows of the four full strings without reuse,
and where routers have states at most 10 % more than where they have none, however the continuations arrive.
Rows held in the KV cache after traffic are the rows that attend, layer by layer.
"""

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import support
from support import Server

ULTRADEEP = support.ROOT / "tests" / "ultradeep"


def requests_of(vocabulary: int = 16384) -> dict:
    """A context of 400 ids and four continuations of 10."""
    draw = random.Random(7)
    ids = lambda n: [draw.randrange(3, vocabulary) for _ in range(n)]  # noqa: E731
    return {"requests": [{"context": ids(400), "continuations": [ids(10) for _ in range(4)]}]}


def computed(server: Server) -> float:
    """Rows that the server has computed so far."""
    return server.metrics()["dtrnet_rows_computed_total"]


def rows_with_reuse() -> float:
    """One request with four continuations."""
    with Server(support.SHIPPED, "--dtype", "f32") as server:
        server.post("/v1/loglikelihood", requests_of())
        return computed(server)


def rows_without_reuse() -> float:
    """The four full strings, one request each, and no prefix cache."""
    with Server(support.SHIPPED, "--dtype", "f32", "--prefix-cache", "off") as server:
        asked = requests_of()["requests"][0]
        for continuation in asked["continuations"]:
            body = {"prompt": asked["context"] + continuation, "max_tokens": 0, "echo": True, "logprobs": 1}
            server.post("/v1/completions", body)
        return computed(server)


def rows_by_arrival(model: Path) -> dict[str, float]:
    """Rows of a small model: the four continuations in one request, one after another, and at the same time."""
    asked = requests_of(vocabulary=128)["requests"][0]
    single = [{"requests": [{"context": asked["context"], "continuations": [c]}]} for c in asked["continuations"]]
    rows = {}
    for arrival, bodies in {"one request": [{"requests": [asked]}], "one by one": single, "at once": single}.items():
        with Server(model, "--dtype", "f32", "--max-model-len", "512") as server:
            with ThreadPoolExecutor(len(bodies) if arrival == "at once" else 1) as pool:
                list(pool.map(lambda body, server=server: server.post("/v1/loglikelihood", body), bodies))
            rows[arrival] = computed(server)
    return rows


def check_states() -> bool:
    """Reuse with a recurrent router state against reuse without one."""
    plain = rows_by_arrival(ULTRADEEP / "nested-mlp")
    recurrent = {
        name: rows_by_arrival(ULTRADEEP / name) for name in ("nested-mamba-bf16", "hybridnorm-nested-mamba-bf16", "mamba-defaults-bf16")
    }
    print("rows computed:", {"nested-mlp": plain, **recurrent})
    return all(rows[arrival] <= 1.1 * n for rows in recurrent.values() for arrival, n in plain.items())


def check_kv_rows() -> bool:
    """KV rows held after harness traffic are the rows routed, and (1 + share) / 2 of what a dense model would hold."""
    with Server(support.SHIPPED, "--dtype", "f32") as server:
        support.harness(server, ["sample_ending", "sample_fourway"], batch_size=16)
        series = server.idle_metrics()
    routed = {n: rows for n, rows in series.items() if n.startswith("dtrnet_layer_rows_routed_total")}
    held, evicted = series["dtrnet_kv_held_rows"], series["dtrnet_prefix_tree_evicted_tokens_total"]
    dense = len(routed) * series["dtrnet_rows_computed_total"]
    print(f"{held:.0f} KV rows held, {sum(routed.values()):.0f} rows attended, {held / dense:.3f} of a dense model's")
    return evicted == 0 and held == sum(routed.values()) < dense


def main() -> int:
    """All parts."""
    warm, cold = rows_with_reuse(), rows_without_reuse()
    print(f"rows computed: {warm:.0f} with reuse, {cold:.0f} without")
    return 0 if warm * 3 <= cold and check_states() and check_kv_rows() else 1


if __name__ == "__main__":
    sys.exit(main())
