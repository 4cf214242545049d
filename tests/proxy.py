"""A server that can be away for a while without being stopped: what is between it and its clients is cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def proxy(host: str, target: tuple[str, int]) -> Iterator["Proxy"]:
    """A TCP proxy on an address that pods reach, too."""
    it = Proxy(host, target)
    try:
        yield it
    finally:
        it.close()


class Proxy:
    """Forwards connections, until it is cut."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self._target, self._open = target, True
        self._links: list[socket.socket] = []
        self._listener = socket.create_server((host, 0))
        self.address = f"http://{host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._links += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return  # the other side was cut
        finally:
            sink.close()

    def cut(self) -> None:
        """The other side is away: open connections break, new ones are closed at once."""
        self._open = False
        for link in self._links:
            link.close()
        self._links.clear()

    def mend(self) -> None:
        """It is back."""
        self._open = True

    def close(self) -> None:
        """Stop listening."""
        self.cut()
        self._listener.close()
