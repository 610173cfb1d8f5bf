"""The client against a server in this process: retries, patience, status codes, keys, certificates, order of answers."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import fake
from dtrnet_eval import client as module
from dtrnet_eval.access import Access
from dtrnet_eval.client import Client, server_root
from dtrnet_eval.errors import NotOursError, RefusedError, UnauthorizedError, UnreachableError, UsageError
from dtrnet_eval.pool import Pool

NO_KEYS = {"DTRNET_API_KEY": "", "OPENAI_API_KEY": ""}


def client_of(server: fake.FakeServer, patience_s: float = 100, **more: Any) -> Client:
    return Client(Access(server.url, **more), patience_s=patience_s)


@mock.patch.dict(os.environ, NO_KEYS)
@mock.patch.object(module, "FIRST_PAUSE_S", 0.001)
class Patience(unittest.TestCase):
    def test_answers_after_refusals(self) -> None:
        for status in (429, 502, 503, 504):
            left = [status, status, 200]
            with fake.FakeServer(lambda *_: (left.pop(0), {}, {"fine": 1})) as server:  # noqa: B023
                self.assertEqual(client_of(server).post("/x", {}), {"fine": 1})
                self.assertEqual(len(server.asked), 3)

    def test_retry_after_is_waited_for(self) -> None:
        slept: list[float] = []
        left = [(503, {"Retry-After": "3"}, {}), (200, {}, {})]
        with fake.FakeServer(lambda *_: left.pop(0)) as server, mock.patch.object(module.time, "sleep", slept.append):
            client_of(server).post("/x", {})
        self.assertEqual(slept, [3.0])

    def test_gives_up(self) -> None:
        with fake.FakeServer(lambda *_: (503, {"Retry-After": "9"}, {})) as server:
            with self.assertRaisesRegex(UnreachableError, "status 503; gave up after 5 s"):
                client_of(server, patience_s=5).post("/x", {})
            self.assertEqual(len(server.asked), 1)
        with self.assertRaisesRegex(UnreachableError, "no connection"):
            Client(Access(server.url), patience_s=0).post("/x", {})

    def test_pauses_grow_to_a_limit(self) -> None:
        slept: list[float] = []
        left = [503] * 20 + [200]
        with fake.FakeServer(lambda *_: (left.pop(0), {}, {})) as server, mock.patch.object(module.time, "sleep", slept.append):
            Client(Access(server.url), patience_s=1000).post("/x", {})
        self.assertEqual(slept[0], 0.002)
        self.assertEqual(slept[-1], module.LONGEST_PAUSE_S)
        self.assertEqual(slept, sorted(slept))

    def test_no_second_try(self) -> None:
        cases = [(400, RefusedError, "400: wrong"), (401, UnauthorizedError, "401: wrong; set DTRNET_API_KEY"), (500, RefusedError, "500")]
        for status, kind, text in cases:
            with fake.FakeServer(lambda *_: (status, {}, {"error": {"message": "wrong"}})) as server:  # noqa: B023
                with self.assertRaisesRegex(kind, text):
                    client_of(server).post("/x", {})
                self.assertEqual(len(server.asked), 1)

    def test_answers_that_are_no_objects(self) -> None:
        for value in (b"<html>", b"[1]", b"\xff"):
            with fake.FakeServer(lambda *_: (200, {}, value)) as server:  # noqa: B023
                with self.assertRaisesRegex(NotOursError, "not a JSON object"):
                    client_of(server).post("/x", {})
                with self.assertRaisesRegex(NotOursError, "is not a dtrnet server"):
                    client_of(server).version()

    def test_version(self) -> None:
        with fake.FakeServer(fake.version_only) as server:
            self.assertEqual(client_of(server).version().model, "tiny")
        with fake.FakeServer(lambda *_: (200, {}, {"version": "0.0.1"})) as server, self.assertRaisesRegex(NotOursError, "an older one"):
            client_of(server).version()
        with fake.FakeServer(lambda *_: (404, {}, {})) as server, self.assertRaisesRegex(NotOursError, "is not a dtrnet server"):
            client_of(server).version()
        with (
            fake.FakeServer(lambda *_: (401, {}, {})) as server,
            self.assertRaisesRegex(UnauthorizedError, "401: the server wants an API key"),
        ):
            client_of(server).version()


@mock.patch.dict(os.environ, NO_KEYS)
class Many(unittest.TestCase):
    def test_each_answer_at_its_place(self) -> None:
        got: dict[int, int] = {}
        with fake.FakeServer(lambda _path, body, _headers: (200, {}, {"n": body["n"] * 2})) as server:
            Pool(Access(server.url), in_flight=4).ask_all("/x", 50, lambda n: {"n": n}, lambda value: value["n"], got.__setitem__)
        self.assertEqual(got, {n: 2 * n for n in range(50)})

    def test_first_error_ends_it(self) -> None:
        def reply(_path: str, body: Any, _headers: Any) -> fake.Reply:
            return (400, {}, {}) if body["n"] == 3 else (200, {}, {})

        with fake.FakeServer(reply) as server:
            with self.assertRaises(RefusedError):
                Pool(Access(server.url), in_flight=1).ask_all("/x", 50, lambda n: {"n": n}, dict, lambda *_: None)
            self.assertLessEqual(len(server.asked), 5)

    def test_an_answer_that_lacks_something_names_the_path(self) -> None:
        from dtrnet_eval.answers import TokensAnswer

        with fake.FakeServer(lambda *_: (200, {}, {})) as server, self.assertRaisesRegex(NotOursError, "/tokenize: .*'tokens'"):
            client_of(server).ask("/tokenize", {}, TokensAnswer.read)


class Keys(unittest.TestCase):
    def test_where_the_key_comes_from(self) -> None:
        with tempfile.TemporaryDirectory() as folder, fake.FakeServer(fake.version_only) as server:
            file = Path(folder) / "key"
            file.write_text("from-file\n")
            (Path(folder) / ".netrc").write_text("machine 127.0.0.1 login user password other\n")
            (Path(folder) / ".netrc").chmod(0o600)
            cases = [
                ({}, {}, None),
                ({"DTRNET_API_KEY": "ours"}, {}, "Bearer ours"),
                ({"OPENAI_API_KEY": "theirs"}, {}, "Bearer theirs"),
                ({"DTRNET_API_KEY": "ours", "OPENAI_API_KEY": "theirs"}, {}, "Bearer ours"),
                ({"DTRNET_API_KEY": "ours"}, {"api_key_file": str(file)}, "Bearer from-file"),
            ]
            for environment, more, want in cases:
                with mock.patch.dict(os.environ, {**NO_KEYS, "HOME": folder, **environment}):
                    client_of(server, **more).version()
                self.assertEqual(server.asked[-1][2].get("Authorization"), want, environment)


@unittest.skipUnless(shutil.which("openssl"), "no openssl program")
@mock.patch.dict(os.environ, NO_KEYS)
class Certificates(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.files = [cls.make(name) for name in ("server", "other")]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    @classmethod
    def make(cls, name: str) -> Path:
        """A self-signed certificate for 127.0.0.1 with its key, in one file."""
        path = Path(cls.folder.name) / f"{name}.pem"
        line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        line += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path) + ".key", "-out", str(path)]
        subprocess.run(line, check=True, capture_output=True)
        path.write_text(path.read_text() + Path(str(path) + ".key").read_text())
        return path

    def test_beside_the_environment(self) -> None:
        """What is said in arguments holds, whatever REQUESTS_CA_BUNDLE says; said nothing, it holds."""
        ours, other = (str(path) for path in self.files)
        cases = [
            ({}, "", False),
            ({"ca_cert_path": ours}, "", True),
            ({"ca_cert_path": ours}, other, True),
            ({"verify_certificate": False}, "", True),
            ({"verify_certificate": False}, other, True),
            ({"ca_cert_path": other}, ours, False),
            ({}, ours, True),
        ]
        with fake.FakeServer(fake.version_only, self.files[0]) as server:
            for more, bundle, works in cases:
                with mock.patch.dict(os.environ, {"REQUESTS_CA_BUNDLE": bundle}), self.subTest(more=more, bundle=bundle):
                    if works:
                        self.assertEqual(client_of(server, **more).version().model, "tiny")
                    else:
                        with self.assertRaisesRegex(UnreachableError, "TLS failed.*ca_cert_path"):
                            client_of(server, **more).version()

    def test_no_such_file(self) -> None:
        with self.assertRaisesRegex(UsageError, "there is no such file"):
            Client(Access("https://127.0.0.1:1", ca_cert_path="/nowhere.pem"))


class Addresses(unittest.TestCase):
    def test_roots(self) -> None:
        for given in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/completions", "http://h:1/v1/completions/"):
            self.assertEqual(server_root(given), "http://h:1")
        for given in ("ftp://x", "h:1", ""):
            with self.assertRaisesRegex(UsageError, "must begin with http"):
                server_root(given)


if __name__ == "__main__":
    unittest.main()
