"""A name server for tests: one name with addresses that may change, over UDP on the loopback. RFC 1035, A records only."""

from __future__ import annotations

import socket
import struct
import threading

SECONDS_TO_LIVE = 1


class NameServer:
    """Answers every question for an A record with `addresses`, for a `with` block; a name that it does not know has none."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self.name, self.addresses = name, addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def _answer(self, asked: bytes) -> bytes:
        number, at, labels = asked[:2], 12, []
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += 1 + asked[at]
        end = at + 5  # the last length, type and class
        kind = struct.unpack(">H", asked[at + 1 : at + 3])[0]
        known = ".".join(labels) == self.name
        found = [socket.inet_aton(one) for one in self.addresses] if known and kind == 1 else []
        head = number + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, len(found), 0, 0)
        return head + asked[12:end] + b"".join(struct.pack(">HHHIH", 0xC00C, 1, 1, SECONDS_TO_LIVE, 4) + one for one in found)

    def _serve(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(4096)
            if not asked:
                return
            self._socket.sendto(self._answer(asked), client)

    def __enter__(self) -> NameServer:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
