"""Keys: where they come from, and that arguments which would record them are refused. Model arguments and server flags."""

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from dtrnet_eval import access, modelargs, serverflags
from dtrnet_eval.access import Access
from dtrnet_eval.errors import UsageError


class KeyFiles(unittest.TestCase):
    def test_contents(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "key"
            for content, key in [(b"abc", "abc"), (b"abc\n", "abc"), (b" a-b_c.9!~ \r\n", "a-b_c.9!~")]:
                path.write_bytes(content)
                self.assertEqual(Access(api_key_file=str(path)).key(), key)
            for content in (b"", b"\n", b"a b", b"secret\nother", b"\xc3\xa4", b"a\0b"):
                path.write_bytes(content)
                with self.assertRaisesRegex(UsageError, "must hold the key alone") as caught:
                    Access(api_key_file=str(path)).key()
                self.assertNotIn("secret", str(caught.exception))
            with self.assertRaisesRegex(UsageError, "No such file"):
                Access(api_key_file=folder + "/none").key()

    def test_children_get_it_by_the_environment(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "key"
            path.write_text("abc")
            one = Access("https://h:1", str(path), False, None)
            self.assertEqual(one.environment()["DTRNET_API_KEY"], "abc")
            self.assertEqual(one.model_args(), "base_url=https://h:1,verify_certificate=False")
            self.assertEqual(Access("https://h:1", ca_cert_path="c.pem").model_args(), "base_url=https://h:1,ca_cert_path=c.pem")


class Secrets(unittest.TestCase):
    def test_refused(self) -> None:
        for argument in (
            "api_key=SECRET",
            "base_url=x,api_key=SECRET",
            "base_url=x, api_key=SECRET",
            '{"api_key": "SECRET"}',
            "auth_token=SECRET",
            'header={"Authorization": "Bearer SECRET"}',
            "API_KEY=SECRET",
        ):
            with self.assertRaisesRegex(UsageError, "would stand in results") as caught:
                access.refuse_secrets(["--model_args", argument])
            self.assertNotIn("SECRET", str(caught.exception))

    def test_taken(self) -> None:
        access.refuse_secrets(["--model_args", "base_url=x,api_key_file=/k", "--tasks", "api_keys", "--limit", "4"])


class ModelArguments(unittest.TestCase):
    def function(self, max_length: int = 0, num_concurrent: int = 4, **others: Any) -> None:
        """A signature to compare with."""

    def test_unknown(self) -> None:
        cases = {
            "max_lenght": "no argument max_lenght; did you mean max_length",
            "concurrent": "did you mean num_concurrent",
            "zzz": "there are max_length, num_concurrent",
            "api_key": "would stand in results",
        }
        for name, text in cases.items():
            with self.assertRaisesRegex(UsageError, text):
                modelargs.refuse_unknown({name: 1}, self.function)
        modelargs.refuse_unknown({"batch_size": 1, "device": None, "tokenizer": "x"}, self.function)

    def test_types(self) -> None:
        self.assertEqual([modelargs.whole("n", value) for value in (3, "3", 3.0)], [3, 3, 3])
        for value in ("all", None, 3.5, True, [], -1):
            with self.assertRaises(UsageError):
                modelargs.whole("n", value)
        for value in ("soon", None, -1, float("inf"), float("nan"), True):
            with self.assertRaises(UsageError):
                modelargs.seconds("n", value)
        self.assertEqual((modelargs.seconds("n", "2.5"), modelargs.flag("n", 0), modelargs.flag("n", True)), (2.5, False, True))
        for value in ("no", "false", None, 2):
            with self.assertRaises(UsageError):
                modelargs.flag("n", value)


class ServerFlags(unittest.TestCase):
    def test_key_leaves_the_command_line(self) -> None:
        clean = {"DTRNET_API_KEY_FILE": "", "DTRNET_API_KEY": "", "DTRNET_TLS_CERT": "", "DTRNET_CONFIG": ""}
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "c.json"
            config.write_text('{"api_key": "C", "tls_cert": "c.pem"}')
            keys = str(Path(folder) / "keys")
            Path(keys).write_text("# clients\n\nfirst K#1\nsecond K2\n")
            cases = [
                ([], {}, [], None, False),
                (["--api-key", "K"], {}, [], "K", False),
                (["--dtype", "f32", "--api-key=K", "--threads", "2"], {}, ["--dtype", "f32", "--threads", "2"], "K", False),
                (["--api-key", "A", "--api-key", "B"], {}, [], "B", False),
                ([], {"DTRNET_API_KEY": "E"}, [], "E", False),
                (["--api-key", "K"], {"DTRNET_API_KEY": "E"}, [], "K", False),
                (["--tls-cert", "c", "--tls-key", "k"], {}, ["--tls-cert", "c", "--tls-key", "k"], None, True),
                ([], {"DTRNET_TLS_CERT": "c"}, [], None, True),
                (["--config", str(config)], {}, ["--config", str(config)], "C", True),
                (["--api-key-file", keys], {}, ["--api-key-file", keys], "K#1", False),
                ([], {"DTRNET_API_KEY_FILE": keys}, [], "K#1", False),
                (["--api-key-file", "/nowhere"], {}, ["--api-key-file", "/nowhere"], None, False),
                (["--config", "/nowhere"], {}, ["--config", "/nowhere"], None, False),
            ]
            for flags, environment, rest, key, tls in cases:
                with mock.patch.dict(os.environ, {**clean, **environment}), self.subTest(flags=flags):
                    got = serverflags.read(flags)
                    self.assertEqual((got.flags, got.key, got.tls), (rest, key, tls))
                    self.assertEqual(got.environment().get("OPENAI_API_KEY") == key, key is not None or "OPENAI_API_KEY" not in os.environ)
        with self.assertRaisesRegex(UsageError, "needs a value"):
            serverflags.read(["--api-key"])


if __name__ == "__main__":
    unittest.main()
