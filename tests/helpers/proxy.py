"""An HTTP proxy on loopback that tunnels (CONNECT)."""

import contextlib
import selectors
import socket
import ssl
import threading


class Proxy:
    """Tunnels to any target and records the heads of the requests in `heads`.

    `answer` is sent as the response to each CONNECT. With `context` the proxy itself is reached over TLS.
    """

    def __init__(
        self,
        answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.heads: list[str] = []
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]

    def __enter__(self) -> "Proxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._accept, args=(client,)))
                self._threads[-1].start()

    def _accept(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                head += piece
                if not piece or not head[:1].isalpha():
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    return
            self.heads.append(head.decode())
            client.sendall(self._answer)
            host, _, port = head.split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as target:
                _relay(client, target)


def _relay(client: socket.socket, target: socket.socket) -> None:
    """Copy data both ways until one side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, target)
        selector.register(target, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                source, destination = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(65536)
                if not data:
                    return
                destination.sendall(data)
