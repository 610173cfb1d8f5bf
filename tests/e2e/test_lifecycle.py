"""Start, stop and files: signals while loading, draining and beyond, reloading, logs that nobody reads, closed descriptors, and files of a
checkpoint that change, shrink or are none. Needs nothing beyond Python's standard library.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from http_support import Client, Process, begun, rest, run_tests
from server_process import PATIENCE_S, PROGRAM, ROOT, SHIPPED

SMALL = ROOT / "tests" / "golden" / "dense-gqa-tied"
BODY = {"prompt": [5, 6], "max_tokens": 1}
# Longer than a test sleeps, on any machine.
ENDLESS = {"prompt": [[5, i] for i in range(10, 14)], "n": 128, "max_tokens": 1500, "ignore_eos": True, "temperature": 0}


@contextlib.contextmanager
def copied_model() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        shutil.copytree(SHIPPED, model)
        yield model


def write_slow_model(folder: Path, vocab: int = 150_000, hidden: int = 1024) -> None:
    """A dense checkpoint of zeros whose embedding takes a while to hash and to pack."""
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8,
        "num_key_value_heads": 1, "vocab_size": vocab, "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    layer, kv = "model.layers.0.", hidden // 8
    shapes = {
        "model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden], layer + "input_layernorm.weight": [hidden],
        layer + "post_attention_layernorm.weight": [hidden], layer + "self_attn.q_proj.weight": [hidden, hidden],
        layer + "self_attn.k_proj.weight": [kv, hidden], layer + "self_attn.v_proj.weight": [kv, hidden],
        layer + "self_attn.o_proj.weight": [hidden, hidden], layer + "mlp.gate_proj.weight": [64, hidden],
        layer + "mlp.up_proj.weight": [64, hidden], layer + "mlp.down_proj.weight": [hidden, 64],
    }  # fmt: skip
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


class Loading:
    """`dtrnet serve` on a slow model, from its first log line on."""

    def __init__(self, folder: Path, *flags: str) -> None:
        # A load cannot be broken off, so a process that is told to stop ends around its thread; ThreadSanitizer calls that a leak.
        env = {**os.environ, "TSAN_OPTIONS": os.environ.get("TSAN_OPTIONS", "") + ":report_thread_leaks=0"}
        command = [PROGRAM, "serve", "--port", "0", "--model", str(folder), *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        assert self.process.stderr
        self.client: Client
        for line in self.process.stderr:
            if found := re.search(r"loading .*; (https?://\S+) answers probes", line):
                self.client = Client(found[1])
                break

    def end(self) -> tuple[int, str]:
        """Exit status and the rest of the log."""
        assert self.process.stderr
        text = self.process.stderr.read()
        return self.process.wait(PATIENCE_S), text


def check_while_loading(folder: Path, number: signal.Signals) -> bool:
    """Asks, and stops the server by a signal. False: the model was loaded before."""
    loading = Loading(folder)
    health, ready = (loading.client.call("GET", path) for path in ("/health", "/ready"))
    refused = [loading.client.call("POST", path, body) for path, body in (("/v1/completions", BODY), ("/tokenize", {"prompt": "a"}))]
    metrics = loading.client.call("GET", "/metrics", check=False)
    loading.process.send_signal(number)
    status, text = loading.end()
    assert status == 0, (status, text)
    if "stopped while the model was being loaded" not in text:
        assert "listening on" in text, text
        return False
    assert health.json["status"] == "loading" and (ready.status, ready.json["status"]) == (503, "loading")
    for answer in refused:
        assert answer.status == 503 and "loaded" in answer.json["error"]["message"] and answer.headers["retry-after"]
    assert metrics.status == 503
    return True


def test_signal_while_loading() -> None:
    until = time.monotonic() + PATIENCE_S
    with tempfile.TemporaryDirectory() as folder:
        write_slow_model(Path(folder))
        for number in (signal.SIGTERM, signal.SIGINT):
            while not check_while_loading(Path(folder), number):
                assert time.monotonic() < until, "always loaded before the signal"


def test_weights_that_change_while_loading() -> None:
    """Cut, written or replaced at any moment: one line and an exit status, or the server had loaded before. So often that one was not."""
    until = time.monotonic() + PATIENCE_S
    with tempfile.TemporaryDirectory() as folder:
        i = refused = 0
        while i < 9 or not refused:
            assert time.monotonic() < until, "none was caught in the act"
            write_slow_model(Path(folder), vocab=40_000)
            file = Path(folder) / "model.safetensors"
            loading = Loading(Path(folder))
            time.sleep(0.05 * (i // 3 % 3))
            if i % 3 == 0:
                os.truncate(file, 5000)
            elif i % 3 == 1:
                with open(file, "r+b") as f:
                    f.seek(100_000)
                    f.write(b"changed")
            else:
                shutil.copy(file, f"{file}.new")
                os.replace(f"{file}.new", file)
            while loading.process.poll() is None and time.monotonic() < until:
                try:
                    if loading.client.call("GET", "/ready").status == 200:
                        break
                except OSError:
                    time.sleep(0.01)
            loading.process.send_signal(signal.SIGTERM)
            status, text = loading.end()
            said = [line for line in text.splitlines() if line.startswith("dtrnet: ")]
            assert (status == 0 and not said) or (status in (1, 2) and len(said) == 1), (i, status, text)
            refused += status != 0
            i += 1


def test_files_that_are_none() -> None:
    """FIFOs and devices in the place of a checkpoint's files are refused, or left out where the file may be absent, without waiting."""
    for name in ("config.json", "model.safetensors", "tokenizer.model", "tokenizer.json", "generation_config.json", "tokenizer_config.json",
                 "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "model.safetensors.index.json"):  # fmt: skip
        for kind in ("fifo", "device"):
            with copied_model() as model:
                path = model / name
                path.unlink(missing_ok=True)
                if kind == "fifo":
                    os.mkfifo(path)
                else:
                    path.symlink_to("/dev/zero")
                got = subprocess.run(
                    [PROGRAM, "score", "--model", str(model)], input="", capture_output=True, text=True, timeout=PATIENCE_S
                )
                assert got.returncode in (0, 1, 2), (name, kind, got)
                if name in ("config.json", "model.safetensors"):
                    assert got.returncode != 0 and name in got.stderr, (name, kind, got)


def test_delay_before_the_socket_closes() -> None:
    """New connections see /ready turn, and are served, for --shutdown-delay."""
    with Process(env={"DTRNET_SHUTDOWN_DELAY": "3600"}) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        ready = Client(server.url).call("GET", "/ready")
        assert (ready.status, ready.json["status"]) == (503, "stopping")
        assert Client(server.url).call("POST", "/v1/completions", BODY).status == 200
        server.process.send_signal(signal.SIGTERM)  # a second one ends the delay
        assert server.process.wait(PATIENCE_S) == 0
    with Process(env={"DTRNET_SHUTDOWN_DELAY": "0.1"}) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


def stuck_reader(server: Process) -> socket.socket:
    """A client that asks for a large answer and reads nothing of it."""
    s = server.ask({"prompt": [[5 + i % 9 for i in range(500)]] * 40, "max_tokens": 0, "echo": True, "logprobs": 20})
    assert s.recv(10) == b"HTTP/1.1 2"
    return s


def test_stop_beside_a_client_that_does_not_read() -> None:
    for flags, signals in ((("--drain-timeout", "1"), 1), (("--drain-timeout", "3600"), 2)):
        with Process(*flags, model=SMALL) as server, stuck_reader(server):
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("stopping")
            assert server.process.wait(PATIENCE_S) == 0
            assert "giving up 1 requests" in server.text()


def test_drain_timeout_answers_those_left() -> None:
    with Process("--drain-timeout", "1") as server:
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(Client(server.url).call("POST", "/v1/completions", ENDLESS)))
        thread.start()
        server.wait_metric("dtrnet_running_sequences", lambda n: n >= 1)
        with server.ask({**ENDLESS, "stream": True}) as s:
            assert begun(s)
            server.process.send_signal(signal.SIGTERM)
            stream = rest(s)
        thread.join()
        assert got[0].status == 503 and int(got[0].headers["retry-after"]) > 0
        last = stream.split(b"\n\n")[-3]
        assert json.loads(last[6:])["error"]["code"] == "ERR_DRAINING" and stream.endswith(b"data: [DONE]\n\n"), stream[-300:]
        assert server.process.wait(PATIENCE_S) == 0 and "the stream ended early" in server.text()


def make_certificate(folder: str) -> bool:
    """key.pem and cert.pem, new ones each time."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{folder}/key.pem",
         "-out", f"{folder}/cert.pem", "-days", "2", "-subj", "/CN=localhost"],
        capture_output=True,
    )  # fmt: skip
    return made.returncode == 0


def test_reload() -> None:
    """SIGHUP: another certificate, other keys, a new log file; what is broken leaves the old one in use."""
    with tempfile.TemporaryDirectory() as folder:
        if not make_certificate(folder):
            print("        no openssl program: not tested")
            return
        keys, log = Path(folder) / "keys", Path(folder) / "log"
        keys.write_text("a one-key\n")
        flags = ["--tls-cert", f"{folder}/cert.pem", "--tls-key", f"{folder}/key.pem", "--api-key-file", str(keys)]
        with Process(*flags) as server:
            kept = Client(server.url, "one-key")
            asked = [PROGRAM, "health", "--timeout", str(PATIENCE_S), *flags[:4], "--host", "127.0.0.1", "--port", str(server.client.port)]
            assert subprocess.run(asked, capture_output=True, check=False).returncode == 0
            assert kept.call("GET", "/version").status == 200
            address = server.client.host, int(server.client.port)
            first = ssl.get_server_certificate(address)
            keys.write_text("a two-key\n")
            make_certificate(folder)
            hang_up(server, 1)
            assert ssl.get_server_certificate(address) == Path(folder, "cert.pem").read_text() != first
            assert Client(server.url, "one-key").call("GET", "/version").status == 401
            assert Client(server.url, "two-key").call("GET", "/version").status == 200
            keys.write_text("broken\n")
            Path(folder, "key.pem").write_text("broken\n")
            second = ssl.get_server_certificate(address)
            hang_up(server, 2)
            server.wait_for("the keys stay as they are")
            server.wait_for("the certificate stays as it is")
            assert ssl.get_server_certificate(address) == second
            assert Client(server.url, "two-key").call("GET", "/version").status == 200
        command = [PROGRAM, "serve", "--port", "0", "--log-file", str(log), "--shutdown-delay", "0"]
        process = subprocess.Popen(command)
        while "listening" not in (log.read_text() if log.exists() else ""):
            time.sleep(0.02)
        log.rename(f"{log}.1")
        process.send_signal(signal.SIGHUP)
        while not log.exists():
            time.sleep(0.02)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0 and "stopped" in log.read_text() and "stopped" not in Path(f"{log}.1").read_text()


def hang_up(server: Process, times: int) -> None:
    server.process.send_signal(signal.SIGHUP)
    while server.text().count("SIGHUP:") < times:
        time.sleep(0.01)


def test_log_that_nobody_reads() -> None:
    command = [PROGRAM, "serve", "--port", "0", "--log-level", "debug", "--shutdown-delay", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    client = next(Client(found[1]) for line in process.stderr if (found := re.search(r"listening on (\S+)", line)))
    for _ in range(3000):
        assert client.call("GET", "/health").status == 200
    dropped = re.search(r"log_lines_dropped_total (\d+)", client.call("GET", "/metrics").data.decode())
    assert dropped and int(dropped[1]) > 0
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    process.stderr.close()


def test_closed_descriptors() -> None:
    """With 0, 1 and 2 closed no log line goes into a client's connection."""
    process, until = None, time.monotonic() + PATIENCE_S
    while True:
        if time.monotonic() > until:
            if process:
                process.kill()
            raise AssertionError("the server does not start")
        if process is None or process.poll() is not None:  # somebody else may have got the port in between
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            command = f"exec {PROGRAM} serve --port {port} --shutdown-delay 0 --log-level debug <&- >&- 2>&-"
            process = subprocess.Popen(["sh", "-c", command])
            client = Client(f"http://127.0.0.1:{port}")
        try:
            if client.call("GET", "/ready").status == 200:
                break
        except OSError:
            time.sleep(0.05)
    try:
        for _ in range(20):
            assert client.call("POST", "/v1/completions", BODY).status == 200  # http.client would stumble over anything else
    finally:
        process.terminate()
    assert process.wait(PATIENCE_S) == 0


if __name__ == "__main__":
    sys.exit(run_tests(globals()))
