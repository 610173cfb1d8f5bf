"""Calls every operation of the OpenAPI document through the client that openapi-python-client has made of it: use_client.py FOLDER URL.
FOLDER holds the generated package `dtrnet_client`. Each answer must be read into the types of the document, the events of a stream too.
"""

import json
import sys
from typing import Any

sys.path.insert(0, sys.argv[1])

from dtrnet_client import Client, models
from dtrnet_client.api.completions import create_chat_completion, create_completion
from dtrnet_client.api.page import get_page, get_page_script, get_page_style
from dtrnet_client.api.scores import get_routing, score_continuations, score_texts
from dtrnet_client.api.status import (
    get_description,
    get_health,
    get_metrics,
    get_model,
    get_readiness,
    get_version,
    list_models,
)
from dtrnet_client.api.tokenizer import detokenize, get_tokenizer_info, tokenize
from dtrnet_client.types import UNSET

client = Client(base_url=sys.argv[2], timeout=120)
called: set[str] = set()


def call(operation: Any, status: int = 200, **arguments: Any) -> Any:
    """The parsed answer of an operation's module."""
    called.add(operation.__name__.rsplit(".", 1)[1])
    answer = operation.sync_detailed(client=client, **arguments)
    assert answer.status_code == status, f"{operation.__name__}: {answer.status_code} {answer.content[:300]!r}"
    assert answer.parsed is not None, operation.__name__
    return answer.parsed


def check_completions() -> None:
    """With and without lists, errors, and the events of a stream."""
    plain = call(create_completion, body=models.CompletionRequest(prompt="It was", max_tokens=3, temperature=0))
    assert isinstance(plain, models.Completion) and plain.choices[0].logprobs is None and plain.usage.completion_tokens == 3
    asked = models.CompletionRequest(
        prompt=[[345, 885], [479]], max_tokens=2, echo=True, logprobs=2, prompt_logprobs=1, stop=["never"], seed=5, stop_token_ids=[3]
    )
    choice = call(create_completion, body=asked).choices[0]
    lists = choice.logprobs
    assert isinstance(lists, models.Logprobs) and lists.token_logprobs[0] is None and len(lists.tokens) == 4
    assert lists.top_logprobs[0] is None and len(lists.top_logprobs[1].additional_properties) >= 2
    assert choice.prompt_logprobs[0] is None and choice.prompt_logprobs[1].additional_properties["885"].logprob == lists.token_logprobs[1]
    wrong = call(create_completion, 400, body=models.CompletionRequest(prompt="x", logprobs=50))
    assert isinstance(wrong, models.Error) and wrong.error.param == "logprobs"
    assert isinstance(call(create_chat_completion, 400), models.Error)
    options = models.StreamOptions(include_usage=True)
    body = models.CompletionRequest(prompt="It was", max_tokens=4, temperature=0, logprobs=0, stream=True, stream_options=options)
    with client.get_httpx_client().stream(**{"method": "post", "url": "/v1/completions", "json": body.to_dict()}) as answer:
        lines = [line[len("data: ") :] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    events = [models.CompletionEvent.from_dict(json.loads(line)) for line in lines]
    assert len(events) == 5 and events[-1].usage.completion_tokens == 4
    assert [e.choices[0].finish_reason for e in events[:-1]] == [None, None, None, "length"]


def check_scores() -> None:
    """Pairs and documents."""
    pair = models.LoglikelihoodRequestRequestsItem(context="The old man sat on the", continuations=[" bank", " moon"])
    scored = call(score_continuations, body=models.LoglikelihoodRequest(requests=[pair], tokens=True, routing=True))
    first = scored.results[0].continuations[0]
    assert first.logprob < 0 and len(first.tokens) == first.num_tokens == len(first.token_logprobs) and first.routing is not UNSET
    texts = call(score_texts, body=models.RollingRequest(text="It rained the whole day.", bucket_edges=[0, 4]))
    assert texts.results[0].num_tokens > 4 and len(texts.results[0].buckets.by_context.logprob) == 2


def check_routing() -> None:
    """The answer that the page draws, and the page."""
    answer = call(get_routing, body=models.RoutingRequest(text="The old man", top_logprobs=2))
    assert len(answer.tokens) == 3 and answer.token_logprobs[0] is None and len(answer.next_[0]) == 2
    assert all(len(layer.routing) == 3 for layer in answer.layers)
    assert "<html" in call(get_page) and call(get_page_style) and call(get_page_script)


def check_the_rest() -> None:
    """Tokenizer and status."""
    ids = call(tokenize, body=models.TokenizeRequest(prompt="The old man")).tokens
    assert call(detokenize, body=models.DetokenizeRequest(tokens=ids)).prompt == "The old man"
    assert call(get_tokenizer_info).bos_token == "<s>"
    name = call(list_models).data[0].id
    assert call(get_model, model=name).id == name == call(get_version).model
    assert call(get_health).status == call(get_readiness).status == "ok"
    assert "dtrnet_http_requests_total" in call(get_metrics)
    assert "paths" in call(get_description).additional_properties


def module_of(operation: str) -> str:
    """CreateCompletion -> create_completion."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in operation)


check_completions()
check_scores()
check_routing()
check_the_rest()
document = get_description.sync(client=client).additional_properties
operations = {module_of(o["operationId"]) for item in document["paths"].values() for o in item.values()}
missing = operations - called
print(f"{len(called)} of {len(operations)} operations called" + (f"; not: {', '.join(sorted(missing))}" if missing else ""))
sys.exit(bool(missing))
