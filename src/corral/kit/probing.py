"""One try of an HTTP address that never blocks, for a loop that has other things to do; light, as a guard needs it."""

from __future__ import annotations

import errno
import os
import select
import socket
import time

_TIMEOUT = 5.0
_MOST = 64 * 1024


class Try:
    """A request on its way; with an empty one, only the connection. Poll `fileno()` for `events`, then `step`."""

    def __init__(self, address: tuple[str, int], request: str, expect: str) -> None:
        self.events = select.POLLOUT
        self.deadline = time.monotonic() + _TIMEOUT
        self._port = address[1]
        self._expect = expect.encode()
        self._line = request.partition("\r\n")[0].rpartition(" ")[0]
        self._to_send = request.encode("latin-1")
        self._asked = bool(request)
        self._answer = bytearray()
        self._connected = False
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self._failed = self._socket.connect_ex(address)
        except OSError:  # a name that nobody knows
            self._failed = errno.EHOSTUNREACH

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def step(self) -> str | None:
        """Go on as far as that is possible now: "" it answers as it should, None not yet, else what is wrong."""
        try:
            return self._step()
        except BlockingIOError:
            return None if time.monotonic() < self.deadline else f"{self._line} is not answered in {_TIMEOUT:g} s"
        except OSError as error:
            return f"{self._line} is not answered: {error.strerror}"

    def _step(self) -> str | None:
        if not self._connected:
            if self._failed == errno.EINPROGRESS:
                if not select.select([], [self._socket], [], 0)[1]:
                    raise BlockingIOError
                self._failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if self._failed or self._socket.getsockname() == self._socket.getpeername():
                return f"no connection to port {self._port}: {os.strerror(self._failed)}"
            self._connected = True
        if not self._asked:
            return ""
        while self._to_send:
            self._to_send = self._to_send[self._socket.send(self._to_send) :]
        self.events = select.POLLIN
        while data := self._socket.recv(65536):
            self._answer += data
            if len(self._answer) > _MOST or self._is_whole():
                break
        return self._judge()

    def _is_whole(self) -> bool:
        """Whether enough has come to judge: the status line, or the text that is expected."""
        return b"\r\n" in self._answer and self._expect in self._answer

    def _judge(self) -> str:
        line = self._answer.partition(b"\r\n")[0].split()
        if len(line) < 2 or not line[0].startswith(b"HTTP/") or not line[1].isdigit():
            return f"{self._line} is not answered in HTTP"
        if not line[1].startswith(b"2"):
            return f"{self._line} is answered with {line[1].decode()}"
        if self._expect not in self._answer:
            return f"{self._line} is answered, and not with {self._expect.decode()!r}"
        return ""
