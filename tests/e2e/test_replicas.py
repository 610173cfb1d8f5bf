"""A server of several CPU devices: scores and tokens are those of one to the bit, prefixes are computed once, each device is told of.

When one fails in the middle no request fails and no answer changes; the server ends answering only when all have failed.
"""

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import server_process
import support
from support import Server

MODEL = support.ROOT / "tests" / "golden" / "dtrnet-bilayer"
FLAGS = ("--device", "cpu", "--dtype", "f32", "--max-batch-tokens", "64", "--max-model-len", "256")
FAILING = os.environ.get("DTRNET_TEST_FAILING", str(support.ROOT / "build" / "tests" / "e2e" / "dtrnet_failing"))
PATHS = {"score": "/v1/loglikelihood", "roll": "/v1/loglikelihood_rolling", "complete": "/v1/completions"}


def make_requests() -> list[tuple[str, dict]]:
    """Contexts with four continuations, in calls of their own and together; documents; prompts to be continued, some of them as streams."""
    draw = random.Random(3)
    ids = lambda n: [draw.randrange(3, 120) for _ in range(n)]  # noqa: E731
    items = [{"context": ids(40), "continuations": [ids(4) for _ in range(4)]} for _ in range(40)]
    asked = [
        ("score", {"requests": [{"context": item["context"], "continuations": [c]}]}) for item in items[:10] for c in item["continuations"]
    ]
    asked += [("score", {"requests": items[i : i + 10]}) for i in range(10, 40, 10)]
    for i in range(12):
        body = {"prompt": ids(20), "max_tokens": 12, "ignore_eos": True, "logprobs": 1, "stream": i % 3 == 0}
        asked.append(("complete", {**body, **({"temperature": 0.9, "seed": i} if i % 2 else {"temperature": 0})}))
    draw.shuffle(asked)
    return asked


def numbers(kind: str, body: dict, text: str) -> object:
    """What an answer says of scores and tokens; floats are written so that they are read back to the bit."""
    if kind == "score":
        return [[(c["logprob"], c["is_greedy"]) for c in r["continuations"]] for r in json.loads(text)["results"]]
    if not body["stream"]:
        return [json.loads(text)["choices"][0]["logprobs"]["token_logprobs"]]
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert not any("error" in e for e in events), events
    return [[lp for e in events for c in e["choices"] if c.get("logprobs") for lp in c["logprobs"]["token_logprobs"]]]


def ask(server: Server, one: tuple[str, dict]) -> object:
    """The numbers of one request."""
    kind, body = one
    answer = server.session.post(server.url + PATHS[kind], json=body)
    assert answer.status_code == 200, answer.text
    return numbers(kind, body, answer.text)


def ask_all(server: Server, asked: list[tuple[str, dict]]) -> list[object]:
    """All of them, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda one: ask(server, one), asked))


def check_equal(asked: list[tuple[str, dict]]) -> list[object]:
    """Two and three devices against one."""
    with Server(MODEL, *FLAGS) as server:
        want = ask_all(server, asked)
        rows = server.metrics()["dtrnet_rows_computed_total"]
        assert [d["device"] for d in server.get("/version").json()["devices"]] == [0]
    for devices in ("0,1", "2,0,1"):
        with Server(MODEL, *FLAGS, "--devices", devices) as server:
            numbers_of = [int(d) for d in devices.split(",")]
            assert ask_all(server, asked) == want, f"devices {devices} give other numbers"
            series = server.idle_metrics()
            assert series["dtrnet_rows_computed_total"] <= 1.03 * rows, (series["dtrnet_rows_computed_total"], rows)
            by_device = [series[f'dtrnet_device_rows_computed_total{{device="{d}"}}'] for d in numbers_of]
            assert sum(by_device) == series["dtrnet_rows_computed_total"] and min(by_device) > 0, by_device
            assert all(series[f'dtrnet_device_up{{device="{d}"}}'] == 1 for d in numbers_of)
            told = [{"device": d, "status": "ok"} for d in numbers_of]
            assert server.get("/health").json() == {"status": "ok", "devices": told} and server.get("/version").json()["devices"] == told
            print(f"devices {devices}: {len(want)} answers equal, {by_device} rows of {rows}", flush=True)
    return want


def check_ranks(asked: list[tuple[str, dict]], want: list[object]) -> None:
    """Two devices that compute the model together, and two such groups."""
    for flags, groups in ((("--tensor-parallel", "2"), [0]), (("--tensor-parallel", "2", "--devices", "2,3,0,1"), [2, 0])):
        with Server(MODEL, *FLAGS, *flags) as server:
            assert ask_all(server, asked) == want, f"{flags} give other numbers"
            told = server.get("/version").json()
            assert told["tensor_parallel"] == 2 and [d["device"] for d in told["devices"]] == groups, told


def check_one_fails(asked: list[tuple[str, dict]], want: list[object]) -> None:
    """One of two devices fails at a call, early and late."""
    moved = 0
    for device, call in ((0, 1), (1, 2), (0, 9), (1, 60), (0, 171), (1, 300)):
        with Server(MODEL, *FLAGS, "--devices", "0,1", env={"DTRNET_TEST_FAIL": f"{device}:{call}"}) as server:
            for _ in range(12):  # which device gets how many calls is the timing's, so work goes on until this one had enough
                assert ask_all(server, asked) == want, f"device {device} failing at call {call} changes numbers"
                series, health = server.idle_metrics(), server.get("/health")
                if series[f'dtrnet_device_up{{device="{device}"}}'] == 0:
                    break
            assert series[f'dtrnet_device_up{{device="{device}"}}'] == 0 and series[f'dtrnet_device_up{{device="{1 - device}"}}'] == 1
            assert health.status_code == 200 and health.json()["status"] == "ok"
            assert health.json()["devices"][device] == {"device": device, "status": "the device was asked to fail"}
            assert f"device {device} failed; others take over" in server.text()
            mine = series[f'dtrnet_device_moved_sequences_total{{device="{device}"}}']
            assert mine > 0
            moved += mine
    print(f"{moved:.0f} sequences moved, all answers equal", flush=True)


def check_all_fail(asked: list[tuple[str, dict]]) -> None:
    """Every device fails: requests get 503 with the reason, and so does /health."""
    with Server(MODEL, *FLAGS, "--devices", "0,1", env={"DTRNET_TEST_FAIL": "-1:50"}) as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda one: server.session.post(server.url + PATHS[one[0]], json={**one[1], "stream": False}), asked))
        assert {a.status_code for a in answers} <= {200, 503} and answers[-1].status_code == 503
        assert "asked to fail" in answers[-1].text, answers[-1].text
        assert server.get("/health").status_code == 503 and server.get("/ready").status_code == 503


def check_refused() -> None:
    """Devices that are not there, or named twice: one line, exit status 1 or 2."""
    cases = [(("--devices", text), says) for text, says in (("0,0", "names 0 twice"), ("16", "names 16,"), ("0,", "--devices is"))]
    cases += [(("--tensor-parallel", "4"), "--tensor-parallel 4 does not divide the model's num_attention_heads of 6")]
    cases += [(("--tensor-parallel", "3"), "--tensor-parallel 3 neither divides the model's num_key_value_heads of 2")]
    cases += [(("--tensor-parallel", "2", "--devices", "0,1,2"), "--devices names 3 devices, which is no multiple")]
    for flags, says in cases:
        got = subprocess.run(
            [server_process.PROGRAM, "serve", "--model", str(MODEL), *FLAGS, *flags, "--port", "0", "--log-level", "error"],
            capture_output=True,
            text=True,
        )
        assert got.returncode in (1, 2) and says in got.stderr.splitlines()[-1], got


def main() -> int:
    """All of them."""
    server_process.PROGRAM = os.environ.get("DTRNET_BIN", server_process.PROGRAM)
    asked = make_requests()
    want = check_equal(asked)
    check_ranks(asked, want)
    check_refused()
    server_process.PROGRAM = FAILING
    check_one_fails(asked, want)
    check_all_fail(asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
