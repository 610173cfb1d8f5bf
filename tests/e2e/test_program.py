"""The program around the endpoints: flags, environment, settings file, keys, TLS, the queue's end, shutdown, models without a
tokenizer, `dtrnet score` and `dtrnet inspect`.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from http_support import Client, Process, begun, rest, run_tests
from server_process import PATIENCE_S, PROGRAM, ROOT, SERVED, SHIPPED

# Without a tokenizer. For what needs many positions and not what the model says.
SMALL = ROOT / "tests" / "golden" / "dense-gqa-tied"


def run(*args: str, stdin: str = "", env: dict[str, str] | None = None, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *args], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **(env or {})}, cwd=cwd
    )


def test_help() -> None:
    assert run("--version").stdout.startswith("dtrnet 0.") and "serve" in run("--help").stdout
    text = run("serve", "--help").stdout
    flags = """model host port device dtype threads max-model-len max-batch-tokens kv-cache-memory prefix-cache rope-scaling dense-layers
        bos-id eos-id served-model-name strict-model-name api-key tls-cert tls-key config log-format"""
    for flag in flags.split():
        assert f"--{flag} " in text, flag
    for command in ("score", "inspect", "health"):
        assert run(command, "--help").returncode == 0
    assert run().returncode == 2 and run("fly").returncode == 2


def test_health() -> None:
    """0: works; 1: does not, does not answer, or nobody is there; settings come from where the server has its own."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = str(silent.getsockname()[1])
        assert run("health", "--port", port).returncode == 1
        silent.listen()
        asked = run("health", "--port", port, "--timeout", "0.2")
        assert asked.returncode == 1 and f"port {port}" in asked.stderr
    with Process("--shutdown-delay", "3600") as server:
        env = {"DTRNET_PORT": str(server.client.port), "DTRNET_HOST": "0.0.0.0"}
        patient = ("--timeout", str(PATIENCE_S))
        for args in ((), ("--ready",), ("--host", "localhost")):
            asked = run("health", *patient, *args, env=env)
            assert asked.returncode == 0 and '200 {"status":"ok"}' in asked.stdout, (args, asked)
        assert run("health", "--host", "127.0.0.2", "--timeout", "x", env=env).returncode == 2
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        stopping = [run("health", *patient, *args, env=env) for args in (("--ready",), ())]
        assert [asked.returncode for asked in stopping] == [1, 0] and "503" in stopping[0].stdout + stopping[0].stderr, stopping
        server.process.send_signal(signal.SIGTERM)  # ends the delay


def test_bad_settings() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        file = Path(folder) / "settings.json"

        def with_file(text: str) -> list[str]:
            file.write_text(text)
            return ["--config", str(file)]

        numbers = """--port -1, --port 65536, --port 8k, --port 1e9, --threads -1, --threads 1025, --max-model-len -1, --max-model-len 1.5,
            --max-batch-tokens x, --max-queue 0, --kv-cache-memory 5X, --kv-cache-memory -1G, --kv-cache-memory 99999999G, --bos-id -2,
            --eos-id nan, --max-connections 0, --idle-timeout 0, --max-body 1"""
        words = """--device tpu, --dtype int8, --prefix-cache maybe, --log-format xml, --log-level loud, --cpu-level mmx, --tls-cert x.pem,
            --tls-key x.pem, --tls-cert /none --tls-key /none, --host no.such.host.invalid, --no-such-flag 1, stray, --port,
            --model /no/such/model, --rope-scaling {, --dense-layers a, --max-model-len 4000000 --kv-cache-memory 1M"""
        numbers, words = ([line.split() for line in text.split(",")] for text in (numbers, words))
        words += [["--port", ""], ["--port", str(taken.getsockname()[1])], ["--model", folder], ["--dense-layers", "0,99"]]
        words += [["--rope-scaling", '{"rope_type": "odd"}'], ["--config", "/no/such/file.json"]]
        texts = [
            '{"port": 70000}',
            '{"no_such_key": 1}',
            '{"port": [1]}',
            '{"port": {}}',
            "[]",
            "{",
            '{"config": "x"}',
            '{"prefix_cache": 2}',
        ]
        files = [["file", text] for text in texts]
        for args in [*numbers, *words, *files]:
            argv = with_file(args[1]) if args[0] == "file" else list(args)
            port = [] if "--port" in argv or args[0] == "file" else ["--port", "0"]
            got = run("serve", *port, *argv)
            said = [line for line in got.stderr.splitlines() if line.startswith("dtrnet: ")]
            assert got.returncode in (1, 2) and len(said) == 1, (args, got.returncode, got.stderr)
            name = args[0].lstrip("-").replace("-", "[-_ ]")
            if args[0].startswith("--") and args in numbers:
                assert re.search(name, said[0]) and args[1] in said[0], (args, said)
        assert run("serve", env={"DTRNET_MAX_QUEUE": "0"}).stderr.startswith("dtrnet: DTRNET_MAX_QUEUE: 0 is outside 1")


def test_precedence() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.json"
        file.write_text(
            json.dumps(
                {
                    "max_model_len": 100,
                    "max_batch_tokens": 64,
                    "served_model_name": "of-the-file",
                    "prefix_cache": False,
                    "dense_layers": [2, 4, 6, 8, 10],
                    "log_format": "json",
                }
            )
        )
        env = {"DTRNET_CONFIG": str(file), "DTRNET_MAX_MODEL_LEN": "200", "DTRNET_MAX_BATCH_TOKENS": "96"}
        with Process("--max-model-len=300", model=None, env=env) as server:
            version = server.client.get("/version")
            assert (version["max_model_len"], version["max_batch_tokens"], version["model"]) == (300, 96, "of-the-file")
            assert version["prefix_cache"] is False and version["family"] == "dtrnet"
            lines = [json.loads(line) for line in server.text().splitlines()]
            assert all({"time", "level", "message"} <= set(line) for line in lines)


def test_shipped_model_from_anywhere() -> None:
    assert json.loads(run("inspect", "--json", cwd="/").stdout)["family"] == "dtrnet"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bin").mkdir()
        shutil.copy(PROGRAM, Path(folder) / "bin" / "dtrnet")
        (Path(folder) / "share" / "dtrnet" / "models").mkdir(parents=True)
        shutil.copytree(SHIPPED, Path(folder) / "share" / "dtrnet" / "models" / "dtrnet-26m")
        got = subprocess.run([f"{folder}/bin/dtrnet", "inspect", "--json"], capture_output=True, text=True, cwd="/", check=True)
        assert json.loads(got.stdout)["model"].startswith(folder)


def test_key() -> None:
    with Process(env={"DTRNET_API_KEY": "s3cret"}) as server:
        body = {"prompt": "x", "max_tokens": 1}
        for path in ("/health", "/ready", "/metrics"):
            assert server.client.call("GET", path).status == 200
        for wrong in (None, "", "s3cre", "s3cret ", "s3crets", "S3CRET", "x" * 5000):
            answer = Client(server.url, wrong).call(
                "POST", "/v1/completions", body, headers={"Authorization": "Bearer "} if wrong == "" else None
            )
            assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer" and "s3cret" not in answer.data.decode()
        assert Client(server.url).call("GET", "/version").status == 401
        assert Client(server.url).call("POST", "/v1/completions", b"{", headers={"Authorization": "Basic s3cret"}).status == 401
        assert Client(server.url, "s3cret").call("POST", "/v1/completions", body).status == 200
    with Process() as server:
        assert server.client.call("POST", "/v1/completions", body, headers={"Authorization": "Bearer "}).status == 200


def test_names_and_switches() -> None:
    with Process("--served-model-name", 'my "model"', "--strict-model-name", "--tokenizer-info", "off") as server:
        client = server.client
        body = {"prompt": "x", "max_tokens": 1}
        assert client.call("POST", "/v1/completions", body).status == 404
        assert client.call("POST", "/tokenize", {"prompt": "x", "model": "other"}).json["error"]["param"] == "model"
        assert client.post("/v1/completions", {**body, "model": 'my "model"'})["model"] == 'my "model"'
        assert client.call("GET", "/tokenizer_info").status == 404
        assert 'model="my \\"model\\""' in client.call("GET", "/metrics").data.decode()


def test_tls() -> None:
    with tempfile.TemporaryDirectory() as folder:
        key, cert = f"{folder}/key.pem", f"{folder}/cert.pem"
        made = subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                key,
                "-out",
                cert,
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ],
            capture_output=True,
        )
        if made.returncode:
            print("        no openssl program: TLS not tested")
            return
        with Process("--tls-cert", cert, "--tls-key", key) as server:
            assert server.url.startswith("https://")
            assert server.client.post("/v1/completions", {"prompt": "The old", "max_tokens": 3})["choices"]
            assert server.client.stream("/v1/completions", {"prompt": "The old", "max_tokens": 3})
            with socket.create_connection((server.client.host, int(server.client.port))) as s:
                s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" not in s.recv(100)
        Path(key).write_text("no key")
        assert run("serve", "--port", "0", "--tls-cert", cert, "--tls-key", key).stderr.count("tls-cert") == 1


def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        print("        no IPv6 here")
        return
    with Process("--host", "::1") as server:
        assert "[::1]" in server.url and server.client.get("/health")


def start(server: Process, body: dict[str, Any], path: str = "/v1/completions") -> tuple[threading.Thread, list[Any]]:
    """Sends a request from a thread; the list gets the answer."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(Client(server.url).call("POST", path, body)))
    thread.start()
    return thread, got


LONG = {"prompt": [[5, i] for i in range(10, 14)], "max_tokens": 400, "ignore_eos": True, "temperature": 0}
ENDLESS = {**LONG, "n": 128, "max_tokens": 1500}  # on any machine: longer than a test sleeps


def test_queue_full() -> None:
    pool, prompts, tokens = ("8M", 20, 60) if SERVED == SHIPPED else ("1M", 8, 300)
    with Process("--dtype", "f32", "--max-queue", "4", "--max-model-len", "640", "--kv-cache-memory", pool) as server:
        many = {**LONG, "prompt": [[5, i] for i in range(10, 10 + prompts)], "max_tokens": tokens}
        with server.ask({**ENDLESS, "max_tokens": 600}):  # more than the pool holds: most wait
            server.wait_metric("dtrnet_queue_sequences", lambda n: n >= 4)
            answer = server.client.call("POST", "/v1/completions", many)
            assert answer.status == 503 and int(answer.headers["retry-after"]) > 0, answer.data
            assert answer.json["error"]["type"] == "overloaded_error", answer.data
            address = server.client.host, int(server.client.port)
            with socket.create_connection(address, timeout=PATIENCE_S) as s:  # told before the body
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n")
                assert b" 503 " in s.recv(4096)
        server.wait_metric("dtrnet_queue_sequences", lambda n: n == 0)
        assert len(server.client.post("/v1/completions", many)["choices"]) == prompts  # some of them wait as well


def test_graceful_shutdown() -> None:
    """What is in flight is answered, idle connections do not hold the server, new ones are refused, the exit status is 0."""
    large = {**LONG, "n": 16, "max_tokens": 200, "logprobs": 20, "stream": True}  # of 8 MB, so that it is under way until it is read
    with Process("--transfer-period", "3600", env={"DTRNET_DRAIN_TIMEOUT": str(PATIENCE_S)}) as server, server.ask(large) as held:
        assert begun(held)
        idle = Client(server.url)
        idle.get("/ready")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        assert idle.call("GET", "/ready").status == 503
        late = Client(server.url)
        try:
            late.call("GET", "/health")
            raise AssertionError("a new connection was taken")
        except OSError:
            pass
        data = rest(held)
        assert data.count(b'"finish_reason":"length"') == 64 and data.endswith(b"data: [DONE]\n\n"), data[-300:]
        assert server.process.wait(PATIENCE_S) == 0


def test_second_signal_gives_up() -> None:
    with Process() as server:
        thread, got = start(server, ENDLESS)
        server.wait_metric("dtrnet_running_sequences", lambda n: n >= 1)
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            server.wait_for("stopping")
        assert server.process.wait(PATIENCE_S) == 0
        thread.join()
        assert got[0].status == 503 and int(got[0].headers["retry-after"]) > 0


def test_many_at_once() -> None:
    """Forty connections at once, three rounds on each: the same bits for all."""
    with Process("--dtype", "f32") as server:
        body = {"prompt": "The old man walked down to the river", "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
        want = server.client.post("/v1/completions", body)["choices"]
        wrong: list[Any] = []

        def ask() -> None:
            client = Client(server.url)
            for _ in range(3):
                got = client.post("/v1/completions", body)["choices"]
                wrong.extend([got] if got != want else [])

        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_connection_limit() -> None:
    with Process("--max-connections", "2", "--idle-timeout", "1") as server:
        held = [socket.create_connection((server.client.host, int(server.client.port))) for _ in range(6)]
        assert Client(server.url).get("/health")["status"] == "ok", "idle connections make room in the end"
        for s in held:
            s.close()


def test_client_that_does_not_read() -> None:
    """An answer of 10 MB and more that nobody takes ends after the idle timeout; an answer that is slow to come does not."""
    with Process("--idle-timeout", "1", model=SMALL) as server:
        for stream in (False, True):
            big = {"prompt": [[5 + i % 9 for i in range(500)]] * 40, "max_tokens": 0, "echo": True, "logprobs": 20, "stream": stream}
            with server.ask(big):
                all_done = 80 if stream else 40
                server.wait_metric("dtrnet_sequences_done_total", lambda n, all_done=all_done: n >= all_done)
                server.wait_metric("dtrnet_http_requests_in_flight", lambda n: n <= 1)  # the scrape itself is one
    with Process("--idle-timeout", "1", "--dtype", "f32") as server:
        for n in (250, 500, 1000, 2000):  # until one takes longer than a stalled answer lives, under a sanitizer the first or second
            ids = [7] * n
            slow = {"prompt": [ids, [8, *ids[1:]], [9, *ids[1:]]], "max_tokens": 2, "ignore_eos": True, "temperature": 0}
            events = Client(server.url).stream("/v1/completions", slow)  # a kept connection may be idle for too long
            assert [r for e in events if (r := e["choices"][0]["finish_reason"])] == ["length"] * 3
            begin = time.monotonic()
            assert len(Client(server.url).post("/v1/completions", {**slow, "prompt": [4, *ids[1:]]})["choices"]) == 1
            if time.monotonic() - begin > 4:
                break


def test_without_tokenizer() -> None:
    with Process(model=SMALL) as server:
        client = server.client
        answer = client.post("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 2, "logprobs": 2, "echo": True, "temperature": 0})[
            "choices"
        ][0]
        assert answer["logprobs"]["tokens"][:3] == ["token_id:5", "token_id:6", "token_id:7"] and answer["text"] == ""
        assert all(k.startswith("token_id:") for k in answer["logprobs"]["top_logprobs"][1])
        assert client.post("/v1/loglikelihood", {"requests": [{"context": [5], "continuations": [[6], [7, 8]]}]})["results"]
        assert client.post("/v1/loglikelihood_rolling", {"text": [5, 6, 7, 8]})["results"][0]["num_tokens"] == 4
        for path, body in [
            ("/v1/completions", {"prompt": "text"}),
            ("/v1/completions", {"prompt": [5], "stop": "a"}),
            ("/v1/loglikelihood", {"requests": [{"context": "a", "continuations": ["b"]}]}),
            ("/v1/loglikelihood_rolling", {"text": "a"}),
            ("/tokenize", {"prompt": "a"}),
            ("/detokenize", {"tokens": [5]}),
        ]:
            refused = client.call("POST", path, body)
            assert refused.status == 400 and "tokenizer" in refused.json["error"]["message"], (path, refused.data)
        assert client.call("GET", "/tokenizer_info").status == 404


def test_score_command() -> None:
    bodies = [
        {"requests": [{"context": "The old man", "continuations": [" sat", " ran away"]}], "tokens": True},
        {"context": "It rained the whole", "continuations": [" day"], "tokens": True},
        {"context": "It", "continuations": []},
        {"context": [5, 6], "continuations": [[7, 8]], "max_length": 2, "tokens": True},
    ]
    text = "".join(json.dumps(b) + "\n" for b in bodies[:3]) + "\n{broken\n" + json.dumps(bodies[3])
    got = run("score", "--dtype", "f32", "--model", str(SERVED), stdin=text)
    lines = [json.loads(line) for line in got.stdout.splitlines()]
    assert got.returncode == 1 and len(lines) == 5 and [("error" in line) for line in lines] == [False, False, True, True, False], (
        got.stdout
    )
    with Process("--dtype", "f32") as server:
        for i, line in ((0, lines[0]), (1, lines[1]), (3, lines[4])):
            body = (
                bodies[i]
                if "requests" in bodies[i]
                else {**bodies[i], "requests": [{k: bodies[i][k] for k in ("context", "continuations")}]}
            )
            assert server.client.post("/v1/loglikelihood", body)["results"] == line["results"]
    many = "".join(json.dumps({"context": [5, 5 + i % 300], "continuations": [[6, 7]]}) + "\n" for i in range(700))
    got = run("score", "--model", str(SMALL), stdin=many)
    assert got.returncode == 0 and len(got.stdout.splitlines()) == 700
    assert run("score", stdin="").returncode == 0


def test_inspect() -> None:
    report = json.loads(run("inspect", "--json", "--route-rate", "0.5").stdout)
    assert report["family"] == "dtrnet" and report["flops_per_token"]["route_rate"] == 0.5 and len(report["plan"]) == 12
    assert "KV bytes" in run("inspect").stdout
    assert run("inspect", "--model", "/no/such").returncode == 2 and run("inspect", "--route-rate", "1.5").returncode == 2


def test_warnings() -> None:
    """Few descriptors, and a server that the network reaches without a key."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))

    for flags, limit, says in (
        (["--max-connections", "500"], few, r"600 file descriptors are allowed .*--max-connections 500 needs \d+"),
        (["--host", "0.0.0.0"], None, "0.0.0.0 can be reached from the network, and no key is needed"),
        (["--host", "0.0.0.0", "--api-key", "k"], None, None),
    ):
        command = [PROGRAM, "serve", "--port", "0", "--model", "/no/such/model", *flags]
        got = subprocess.run(command, capture_output=True, text=True, timeout=600, preexec_fn=limit)
        warned = [line for line in got.stderr.splitlines() if " warn " in line and "tokenizer" not in line]
        assert (len(warned) == 1 and re.search(says, warned[0])) if says else not warned, (flags, got.stderr)


def test_check() -> None:
    """The shipped model and one without a tokenizer pass; a spoilt one is named."""
    done = run("check", "--threads", "1", "--kv-cache-memory", "64M")
    assert done.returncode == 0 and done.stdout.count("\nok  ") == 6 and "can be served" in done.stdout, (done.stdout, done.stderr)
    assert re.search(r"scores -3\.\d+ a token", done.stdout), done.stdout
    bare = run("check", "--threads", "1", "--kv-cache-memory", "16M", "--model", str(ROOT / "tests" / "golden" / "dtrnet-bilayer"))
    assert bare.returncode == 0 and "no tokenizer" in bare.stdout, bare
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        shutil.copytree(SHIPPED, model)
        with open(model / "model.safetensors", "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\x80\x7f")
        spoilt = run("check", "--threads", "1", "--log-level", "error", "--kv-cache-memory", "64M", "--model", str(model))
        assert spoilt.returncode == 1 and not spoilt.stdout and "not finite" in spoilt.stderr and spoilt.stderr.count("\n") == 1, spoilt


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
