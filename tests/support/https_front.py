"""What stands between a client of a service on the internet and a server on this machine that plays the service.

A client that heeds `https_proxy` and `SSL_CERT_FILE` (see `HttpsFront.environment`) comes here in the belief that it
goes out: it asks for a tunnel to the service's own host, meets a certificate of that name, and speaks https. What it
says is passed on to a port of this machine in plain http.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import ssl
import struct
import threading
from pathlib import Path
from typing import Self

from tests.support.certificates import certify


class HttpsFront:
    """Tunnels to `hosts`, all of which end at `port`. A context manager; it ends when its clients have.

    Args:
        room: a directory for its certificate.
        strange: gets what else is asked for, which is refused.
    """

    def __init__(self, hosts: tuple[str, ...], port: int, room: Path, strange: list[str]) -> None:
        self.strange = strange
        self.tunnels = [f"CONNECT {host}:443".encode() for host in hosts]
        self.port = port
        self._certificate = room / "front.pem"
        certificate, key = certify(*hosts)
        self._certificate.write_bytes(certificate + key)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self._certificate)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="https-front")

    @property
    def environment(self) -> dict[str, str]:
        """What a client is started with to come here."""
        at = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {"https_proxy": at, "no_proxy": "", "SSL_CERT_FILE": str(self._certificate)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64

    def __init__(self, front: HttpsFront) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.front = front

    def handle_error(self, *_: object) -> None:
        """Connections break here on purpose."""


class _Tunnel(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        front = self.server.front
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += (piece := self.request.recv(4096))
            if not piece:
                return
        what = asked.partition(b" HTTP/")[0]
        if what not in front.tunnels:
            front.strange.append(repr(what))
            self.request.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        with (
            front.tls.wrap_socket(self.request, server_side=True) as near,
            socket.create_connection(("127.0.0.1", front.port)) as far,
        ):
            try:
                _pass_on(near, far)
            except ConnectionResetError:  # reset at one end is reset at the other
                for end in (near, far):
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _pass_on(near: ssl.SSLSocket, far: socket.socket) -> None:
    """Both ways, until one end has said all. One thread for both: a request is sent before it is answered."""
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                while True:
                    piece = key.fileobj.recv(1 << 16)
                    if not piece:
                        return
                    key.data.sendall(piece)
                    if key.fileobj is far or not near.pending():  # of a record that was decrypted no descriptor tells
                        break
