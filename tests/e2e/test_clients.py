"""Other clients give what the harness's `local-completions` gives: our plugin, the harness's `gguf` model type, the openai package.

Sums agree to 1e-5 (each client adds the same numbers in its own way), is_greedy and generated texts are equal. gguf is compared on
items whose context is a whole number of tokens of the full string; the others are counted.
"""

import sys
from typing import Any

import support
from support import Server

sys.path.insert(0, str(support.ROOT / "eval" / "src"))

CHOICES = ["sample_lastword", "sample_twoway", "sample_fourway", "sample_ending"]
SHORT = 24  # model positions; most sample items are longer and get cut
PROMPTS = ["The capital of France is", "In the year 1900,", "She opened the door and", "Water boils when", "One, two, three,"]


def instances(kind: str, arguments: list[tuple]) -> list[Any]:
    """The harness's requests, without a task."""
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=args, idx=i) for i, args in enumerate(arguments)]


def same(got: list[tuple[float, bool]], want: list[tuple[float, bool]]) -> bool:
    """Equal is_greedy, sums within 1e-5."""
    return len(got) == len(want) and all(g[1] == w[1] and abs(g[0] - w[0]) < 1e-5 for g, w in zip(got, want))


def check_plugin(server: Server, pairs: list[tuple[str, str]], want: list[tuple[float, bool]]) -> None:
    """Scores, cut scores, rolling and generation of the plugin."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from dtrnet_eval.lm import DtrnetLM

    def stock(max_length: int) -> Any:
        url = server.url + "/v1/completions"
        return LocalCompletionsAPI(base_url=url, model="any", tokenizer_backend="remote", max_length=max_length, batch_size=8)

    ours = DtrnetLM(base_url=server.url, num_concurrent=8)
    asked = instances("loglikelihood", pairs)
    assert same(ours.loglikelihood(asked), want), "the plugin's scores differ"
    info = ours.get_model_info()
    assert ours.server.model_hash and info["dtrnet_run"]["scored_tokens"] > 0
    print(f"plugin: {len(want)} scores equal; routed share {info['dtrnet_run']['routed_share']}")

    short = DtrnetLM(base_url=server.url, max_length=SHORT)
    fits = [i for i, (_, continuation) in enumerate(pairs) if len(continuation) <= SHORT]
    asked = instances("loglikelihood", [pairs[i] for i in fits])
    assert same(short.loglikelihood(asked), stock(SHORT + 2).loglikelihood(asked)), "cut scores differ"
    assert short.truncated > 0
    print(f"plugin: {len(fits)} scores equal at {SHORT} positions, {short.truncated} of them cut")

    text = (support.TASKS.parent / "samples" / "passage.jsonl").read_text()
    asked = instances("loglikelihood_rolling", [(text,), (text[:500],), ("A",)])
    wide = DtrnetLM(base_url=server.url, max_length=200)
    for got, expected in zip(wide.loglikelihood_rolling(asked), stock(202).loglikelihood_rolling(asked)):
        assert abs(got - expected) < 1e-5, (got, expected)
    limits = {"until": ["\n", "."], "max_gen_toks": 16, "do_sample": False}
    asked = instances("generate_until", [(prompt, limits) for prompt in PROMPTS])
    texts = ours.generate_until(asked)
    assert texts == stock(1024).generate_until(asked), "generated texts differ"
    print(f"plugin: rolling within 1e-5, {len(texts)} generated texts equal")


def check_gguf(server: Server, pairs: list[tuple[str, str]], want: list[tuple[float, bool]]) -> None:
    """The harness's gguf client on every eighth pair, and its generation."""
    from lm_eval.models.gguf import GGUFLM

    from dtrnet_eval.lm import DtrnetLM

    def ids(text: str) -> list[int]:
        return server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    some = range(0, len(pairs), 8)
    clean = [i for i in some if ids("".join(pairs[i]))[: len(ids(pairs[i][0]))] == ids(pairs[i][0])]
    client = GGUFLM(base_url=server.url)
    got = client.loglikelihood(instances("loglikelihood", [pairs[i] for i in clean]), disable_tqdm=True)
    assert same(got, [want[i] for i in clean]), "gguf's scores differ"
    limits = {"until": ["\n"], "max_gen_toks": 16}
    asked = instances("generate_until", [(prompt, limits) for prompt in PROMPTS])
    texts = [text.strip() for text in DtrnetLM(base_url=server.url).generate_until(asked)]
    assert client.generate_until(asked, disable_tqdm=True) == texts, "gguf's texts differ"
    print(f"gguf: {len(clean)} scores equal, {len(some) - len(clean)} items left out, {len(texts)} texts equal")


def check_openai(server: Server) -> None:
    """The openai package: models, completions, logprobs, streaming."""
    import openai

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    model = client.models.list().data[0].id
    body = {"model": model, "prompt": PROMPTS[0], "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**body, logprobs=3)
    choice = whole.choices[0]
    assert choice.logprobs and "".join(choice.logprobs.tokens) == choice.text and whole.usage.completion_tokens == 12
    pieces = [event.choices[0].text for event in client.completions.create(**body, stream=True) if event.choices]
    assert "".join(pieces) == choice.text, (pieces, choice.text)
    echo = client.completions.create(**{**body, "max_tokens": 0}, echo=True, logprobs=1)
    assert echo.choices[0].text == PROMPTS[0]
    try:
        client.completions.create(**{**body, "max_tokens": -1})
    except openai.BadRequestError as error:
        assert "max_tokens" in str(error)
    else:
        raise AssertionError("max_tokens -1 was accepted")
    print(f"openai: {model}, {len(pieces)} events, equal text")


def main() -> int:
    """All clients against one server."""
    with Server(support.SHIPPED, "--dtype", "f32") as server:
        results = support.answers(support.harness(server, CHOICES, batch_size=32))
        flat = [pair for pairs in results.values() for pair in pairs]
        pairs, want = [args for args, _ in flat], [tuple(score) for _, score in flat]
        check_plugin(server, pairs, want)
        check_gguf(server, pairs, want)
        check_openai(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
