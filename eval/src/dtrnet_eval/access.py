"""How a client gets into a server: its address, key and certificates, from arguments, a file or the environment.

A key is never an argument: arguments stand in process lists, in logs and, for the harness's model arguments, in results.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dtrnet_eval.errors import UsageError

KEY_VARIABLES = ("DTRNET_API_KEY", "OPENAI_API_KEY")
HOW_TO_GIVE = f"set {KEY_VARIABLES[0]}, or name a file that holds it with api_key_file"
SECRET_ARGUMENT = re.compile(r"(?:^|[,\s{\"'])(api_key|auth_token)[\"']?\s*[=:]|authorization", re.IGNORECASE)


@dataclass(frozen=True)
class Access:
    """One server, or several that serve the same.

    Attributes:
        base_url: where it listens; for pool.py also several addresses with `+` between them.
        api_key_file: file with the key; None: the environment's key, if any.
        verify_certificate: False accepts any TLS certificate.
        ca_cert_path: file with certificates to trust.
    """

    base_url: str = "http://127.0.0.1:8000"
    api_key_file: str | None = None
    verify_certificate: bool = True
    ca_cert_path: str | None = None

    def key(self) -> str | None:
        """The key: the file's, else the environment's.

        Raises:
            UsageError: the file cannot be read, or does not hold one line of printable ASCII.
        """
        if self.api_key_file is None:
            return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
        try:
            key = Path(self.api_key_file).expanduser().read_text(encoding="ascii").strip()
        except OSError as error:
            raise UsageError(f"api_key_file {self.api_key_file}: {error.strerror}") from None
        except UnicodeDecodeError:
            key = ""
        if not re.fullmatch(r"[!-~]+", key):
            raise UsageError(f"api_key_file {self.api_key_file} must hold the key alone: one line of printable ASCII without blanks")
        return key

    def verify(self) -> bool | str:
        """As the package requests takes it.

        Raises:
            UsageError: there is no such file of certificates.
        """
        if not self.verify_certificate:
            return False
        if self.ca_cert_path and not Path(self.ca_cert_path).is_file():
            raise UsageError(f"ca_cert_path {self.ca_cert_path}: there is no such file")
        return self.ca_cert_path or True

    def model_args(self) -> str:
        """As the harness's --model_args of our model type; the key goes by the environment."""
        more = "" if self.verify_certificate else ",verify_certificate=False"
        return f"base_url={self.base_url}" + more + (f",ca_cert_path={self.ca_cert_path}" if self.ca_cert_path else "")

    def environment(self) -> dict[str, str]:
        """The environment of a child process that uses this access."""
        key = self.key()
        return {**os.environ, **({KEY_VARIABLES[0]: key} if key else {})}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command with a server has."""
    parser.add_argument(
        "--base_url",
        "--base-url",
        default=Access.base_url,
        help="the server, or several that serve the same, with + between them (%(default)s)",
    )
    add_security_arguments(parser)


def add_security_arguments(parser: argparse.ArgumentParser) -> None:
    """Key and certificates."""
    names = " or $".join(KEY_VARIABLES)
    parser.add_argument("--api_key_file", "--api-key-file", metavar="FILE", help=f"file with the server's key; default: ${names}")
    parser.add_argument("--ca_cert_path", "--ca-cert-path", metavar="FILE", help="certificates to trust, PEM")
    parser.add_argument(
        "--no_verify_certificate", "--no-verify-certificate", action="store_true", help="accept any TLS certificate of the server"
    )


def of_arguments(args: argparse.Namespace) -> Access:
    """What `add_arguments` has read."""
    return Access(args.base_url, args.api_key_file, not args.no_verify_certificate, args.ca_cert_path)


def refuse_secrets(arguments: list[str]) -> None:
    """Keys among arguments that would be recorded.

    Raises:
        UsageError: there is one; the message does not repeat it.
    """
    for argument in arguments:
        found = SECRET_ARGUMENT.search(argument)
        if found:
            raise UsageError(
                f"{found[1] or 'a header'} among the arguments would stand in results, logs and process lists; {HOW_TO_GIVE}=FILE"
            )
