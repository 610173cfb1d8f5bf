"""The harness on real benchmark rows (../shared/harness) against a float32 reference, item by item.

DTRNET_TEST_ROWS items (10; the nightly script takes 200) of each of five tasks, on the shipped model and on a dense model of the
same shape: picks and is_greedy equal, summed log probabilities within 2e-3. At most 1 % of the items, or one, may differ; each is printed
with its reason: a routing decision of the reference within 1e-5 of its threshold, or two best choices (for is_greedy, two best
logits) within 1e-4. The same pairs sent as ids and as strings to /v1/completions, and as strings to /v1/loglikelihood, give the
same bits for every token.
"""

import os
import sys
from pathlib import Path

import support  # isort: skip  (first: it finds the Python that has the other packages)
import numpy as np
from sentencepiece import SentencePieceProcessor

from reference import Reference, Scored
from support import Server

TASKS = ["local_arc_easy", "local_hellaswag", "local_piqa", "local_winogrande", "local_lambada_openai"]
LIMIT = int(os.environ.get("DTRNET_TEST_ROWS", "10"))
TOLERANCE = 2e-3
ALLOWED = 0.01
Pair = tuple[list[int], list[int]]


def split(tokenizer: SentencePieceProcessor, context: str, continuation: str) -> Pair:
    """The harness's split of context and continuation."""
    blanks = len(context) - len(context.rstrip())
    if blanks:
        continuation = context[-blanks:] + continuation
        context = context[:-blanks]
    whole, border = tokenizer.encode(context + continuation), len(tokenizer.encode(context))
    return whole[:border], whole[border:]


def reason(item: list[Scored], got: list[tuple[float, bool]]) -> str | None:
    """Why a correct implementation may differ on this item, or None if it may not."""
    if min(s.margin for s in item) < 1e-5:
        return f"routing margin {min(s.margin for s in item):.1e}"
    sums = sorted((s.total for s in item), reverse=True)
    if len(sums) > 1 and sums[0] - sums[1] < 1e-4:
        return f"two best choices {sums[0] - sums[1]:.1e} apart"
    for scored, (_, greedy) in zip(item, got):
        if greedy != scored.greedy and scored.top_gap < 1e-4:
            return f"two best logits {scored.top_gap:.1e} apart"
    return None


def differs(item: list[Scored], got: list[tuple[float, bool]]) -> bool:
    """True if picks, is_greedy or sums are not the reference's."""
    picks = int(np.argmax([s.total for s in item])) != int(np.argmax([total for total, _ in got]))
    greedy = any(s.greedy != g for s, (_, g) in zip(item, got))
    return picks or greedy or any(abs(s.total - total) > TOLERANCE for s, (total, _) in zip(item, got))


def compare(name: str, items: dict, scores: dict) -> int:
    """Prints what differs; the number of items that differ without a reason, or more than may."""
    different, unexplained, worst = 0, 0, 0.0
    for key, pairs in items.items():
        got = [response for _, response in pairs]
        if not differs(scores[key], got):
            worst = max(worst, *(abs(s.total - total) for s, (total, _) in zip(scores[key], got)))
            continue
        why = reason(scores[key], got)
        different += 1
        unexplained += why is None
        print(f"{name}: {key} differs: {why or 'WITHOUT A REASON'}: {got} against {[(s.total, s.greedy) for s in scores[key]]}")
    print(f"{name}: {len(items)} items, {different} differ, {unexplained} without a reason; the others' sums within {worst:.1e}")
    return unexplained + max(0, different - max(1, int(ALLOWED * len(items))))


def echoed(server: Server, prompts: list) -> list[list[float]]:
    """Log probabilities of every prompt token but the first."""
    out: list[list[float]] = []
    for at in range(0, len(prompts), 64):
        body = {"prompt": prompts[at : at + 64], "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        out += [choice["logprobs"]["token_logprobs"][1:] for choice in server.post("/v1/completions", body)["choices"]]
    return out


def check_bits(server: Server, texts: list[tuple[str, str]], pairs: list[Pair]) -> int:
    """Three ways in, the same bits; the number of pairs that differ."""
    by_ids = echoed(server, [context + continuation for context, continuation in pairs])
    by_text = echoed(server, [context + continuation for context, continuation in texts])
    grouped: dict[str, list[int]] = {}
    for i, (context, _) in enumerate(texts):
        grouped.setdefault(context, []).append(i)
    asked = [{"context": context, "continuations": [texts[i][1] for i in which]} for context, which in grouped.items()]
    scored: dict[int, list[float]] = {}
    for at in range(0, len(asked), 64):
        body = {"requests": asked[at : at + 64], "tokens": True}
        answer = server.post("/v1/loglikelihood", body)
        for which, result in zip(list(grouped.values())[at : at + 64], answer["results"]):
            scored |= {i: one["token_logprobs"] for i, one in zip(which, result["continuations"])}
    bad = 0
    for i, (_, continuation) in enumerate(pairs):
        tail = by_ids[i][-len(continuation) :]
        bad += not (by_ids[i] == by_text[i] and tail == scored[i])
    print(f"{len(pairs)} pairs over three ways: {bad} differ in some bit")
    return bad


def check_model(model: Path, tasks: Path) -> int:
    """One model: harness by ids and by strings, reference, bits."""
    tokenizer = SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    with Server(model, "--dtype", "f32") as server:
        items = support.answers(support.harness(server, TASKS, tasks, LIMIT))
        strings = support.answers(support.harness(server, TASKS, tasks, LIMIT, tokenized_requests=False))
        assert strings == items, "strings and ids give different scores"
        texts = [args for pairs in items.values() for args, _ in pairs]
        split_ids = [split(tokenizer, *text) for text in texts]
        failures = check_bits(server, texts, split_ids)
    flat = iter(Reference(model).score(split_ids))
    scores = {key: [next(flat) for _ in pairs] for key, pairs in items.items()}
    return failures + compare(model.name, items, scores)


def main() -> int:
    """Both models."""
    tasks = support.need_shared("harness", "tasks")
    dense = support.need_shared("models", "dense-26m")
    return 1 if sum([check_model(support.SHIPPED, tasks), check_model(dense, tasks)]) else 0


if __name__ == "__main__":
    sys.exit(main())
