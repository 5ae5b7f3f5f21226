"""wsgidav: a real WebDAV server, as a process of its own, with switches for what other servers do differently.

`python -m tests.support.wsgidav_server ROOM` serves ROOM/files, prints its port, and ends when its standard input does.
ROOM/switches holds JSON, read at every request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

USER, PASSWORD = "keeper", "correct horse"
TOKEN = "a-token-of-this-test"
DEADLINE = 30.0


@dataclass(frozen=True)
class Switches:
    """What differs from wsgidav as it comes.

    Attributes:
        free: bytes of room left, as said by the quota property; a PUT that needs more is answered 507, as Nextcloud
            does. None: the disk.
        full_disk: a write fails with ENOSPC at its second half, which wsgidav answers with 500, leaving the first half.
        skew: seconds that the server's files are ahead.
        checksums: OC-Checksum is compared, as ownCloud does: 400 for a body that differs.
        absolute: listings answer with whole URLs, as some servers do.
        password: the one that is right.
        bearer: only TOKEN is right, no password.
        no_ranges: the Range header is ignored.
        overwrites: MOVE replaces, whatever Overwrite says, as servers behind some gateways do.
    """

    free: int | None = None
    full_disk: bool = False
    skew: float = 0.0
    checksums: bool = False
    absolute: bool = False
    password: str = PASSWORD
    bearer: bool = False
    no_ranges: bool = False
    overwrites: bool = False


@dataclass(frozen=True)
class Wsgidav:
    """A running server, and where its files, switches and log are."""

    port: int
    room: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def directory(self, name: str) -> Path:
        """A directory that is served as /name."""
        path = self.room / "files" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def switch(self, **switches: Any) -> None:
        """Sets these switches, and all others back."""
        text = json.dumps(dataclasses.asdict(Switches(**switches)))
        fresh = self.room / "switches.new"
        fresh.write_text(text)
        fresh.replace(self.room / "switches")

    @contextlib.contextmanager
    def switched(self, what: str, **switches: Any) -> Iterator[Callable[[], int]]:
        """With these switches; gives how often `what` fired since."""
        before = self.fired(what)
        self.switch(**switches)
        try:
            yield lambda: self.fired(what) - before
        finally:
            self.switch()

    def fired(self, what: str) -> int:
        """How often a switch changed what was answered."""
        return (self.room / "fired").read_text().split().count(what)


@contextlib.contextmanager
def wsgidav() -> Iterator[Wsgidav]:
    """Starts a server and ends it."""
    room = Path(tempfile.mkdtemp(prefix="chatkeep-wsgidav-"))
    (room / "files").mkdir()
    (room / "fired").touch()
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.wsgidav_server", str(room)]
    try:
        with (
            (room / "out").open("wb") as out,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if not line:
                    raise AssertionError(f"wsgidav did not start: {(room / 'out').read_text()}")
                served = Wsgidav(int(line), room)
                served.switch()
                yield served
            finally:
                process.stdin.close()
                process.terminate()
                process.wait(DEADLINE)
    finally:
        shutil.rmtree(room, ignore_errors=True)


Environ = dict[str, Any]
Start = Callable[..., Any]


# What does not list, move or delete. wsgidav answers 500 when something goes while it lists or moves it.
_TOGETHER: Final = frozenset({"GET", "HEAD", "PUT", "OPTIONS"})


class Front:
    """What stands before wsgidav: the switches that work on requests and replies."""

    def __init__(self, inner: Callable[[Environ, Start], Iterable[bytes]], room: Path) -> None:
        self._inner = inner
        self._room = room
        self._lock, self._alone = threading.Lock(), threading.Lock()

    def now(self) -> Switches:
        return Switches(**json.loads((self._room / "switches").read_text()))

    def fire(self, what: str) -> None:
        with self._lock, (self._room / "fired").open("a") as log:
            log.write(f"{what}\n")

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        switches = self.now()
        environ["tests.switches"] = switches
        verb, size = environ["REQUEST_METHOD"], int(environ.get("CONTENT_LENGTH") or 0)
        if switches.bearer:
            if environ.get("HTTP_AUTHORIZATION") != f"Bearer {TOKEN}":
                return self._refuse(environ, start, "401 Unauthorized", "bearer")
            environ["HTTP_X_TESTS_USER"] = USER
        if verb == "PUT" and switches.free is not None and size > switches.free:
            return self._refuse(environ, start, "507 Insufficient Storage", "free")
        if verb == "PUT" and switches.checksums and (declared := environ.get("HTTP_OC_CHECKSUM")):
            body = environ["wsgi.input"].read(size)
            kind, _, digest = declared.partition(":")
            if hashlib.new(kind.lower(), body, usedforsecurity=False).hexdigest() != digest.lower():
                return self._refuse(environ, start, "400 Bad Request", "checksums")
            environ["wsgi.input"] = _Again(body)
        if switches.no_ranges and environ.pop("HTTP_RANGE", None):
            self.fire("no_ranges")
        if verb == "MOVE" and switches.overwrites and environ.get("HTTP_OVERWRITE") == "F":
            environ["HTTP_OVERWRITE"] = "T"
            self.fire("overwrites")
        if verb not in _TOGETHER:
            environ["wsgi.input"] = _Again(environ["wsgi.input"].read(size))  # nobody waits for one that sends slowly
            with self._alone:
                absolute = verb == "PROPFIND" and switches.absolute
                return self._absolute(environ, start) if absolute else [*self._inner(environ, start)]
        return self._inner(environ, start)

    def _refuse(self, environ: Environ, start: Start, status: str, what: str) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.fire(what)
        start(status, [("Content-Length", "0")])
        return [b""]

    def _absolute(self, environ: Environ, start: Start) -> Iterable[bytes]:
        said: list[Any] = []
        body = b"".join(self._inner(environ, lambda *arguments: said.extend(arguments)))
        here = f"http://{environ['HTTP_HOST']}".encode()
        body, count = re.subn(rb"(<[^>]*href>)/", rb"\g<1>" + here + b"/", body)
        if count:
            self.fire("absolute")
        headers = [(key, value) for key, value in said[1] if key.lower() != "content-length"]
        start(said[0], [*headers, ("Content-Length", str(len(body)))])
        return [body]


class _Again:
    """A request body that was read already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        """Bytes of it, as a file gives them."""
        size = len(self._body) if size < 0 else size
        taken, self._body = self._body[:size], self._body[size:]
        return taken


def _served_files(room: Path, front: list[Front]) -> Any:
    """The provider of wsgidav with the switches that work on files."""
    import errno
    import os

    from wsgidav import fs_dav_provider as fs  # type: ignore[import-untyped]

    class Half:
        """A file of a disk that is full after the first piece."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self._written = 0

        def write(self, piece: bytes) -> int:
            if self._written:
                front[0].fire("full_disk")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._written += len(piece)
            return int(self._inner.write(piece))

        def close(self) -> None:
            self._inner.close()

    class Kept(fs.FileResource):  # type: ignore[misc]
        def begin_write(self, *, content_type: str | None = None) -> Any:
            inner = super().begin_write(content_type=content_type)
            return Half(inner) if front[0].now().full_disk else inner

        def get_last_modified(self) -> float:
            if skew := front[0].now().skew:
                front[0].fire("skew")
            return float(super().get_last_modified()) + skew

    class Room(fs.FolderResource):  # type: ignore[misc]
        def get_available_bytes(self) -> int:
            switches = front[0].now()
            if switches.full_disk:
                return 0
            return int(super().get_available_bytes()) if switches.free is None else switches.free

    class Files(fs.FilesystemProvider):  # type: ignore[misc]
        def get_resource_inst(self, path: str, environ: Environ) -> Any:
            try:
                found = super().get_resource_inst(path, environ)
                if isinstance(found, fs.FileResource):
                    return Kept(path, environ, found._file_path)
                return None if found is None else Room(path, environ, found._file_path)
            except FileNotFoundError:  # deleted while a listing was made, which wsgidav answers with 500
                return None

    return Files(str(room / "files"), fs_opts={"follow_symlinks": False})


class _Right:
    """Knows the one user; wsgidav asks it for a password at every request."""

    def __init__(self, app: Any, config: dict[str, Any]) -> None:
        self._front: list[Front] = config["tests.front"]

    def get_domain_realm(self, path: str, environ: Environ) -> str:
        return "vault"

    def require_authentication(self, realm: str, environ: Environ) -> bool:
        return True

    def basic_auth_user(self, realm: str, user: str, password: str, environ: Environ) -> bool:
        right = user == USER and password == self._front[0].now().password
        if not right:
            self._front[0].fire("password")
        return right

    def supports_http_digest_auth(self) -> bool:
        return True

    def digest_auth_user(self, realm: str, user: str, environ: Environ) -> str | bool:
        if user != USER:
            return False
        told = f"{user}:{realm}:{self._front[0].now().password}"
        return hashlib.md5(told.encode(), usedforsecurity=False).hexdigest()

    def is_share_anonymous(self, share: str) -> bool:
        return False


def _serve(room: Path) -> None:
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp  # type: ignore[import-untyped]

    front: list[Front] = []
    config = {
        "provider_mapping": {"/": _served_files(room, front)},
        "http_authenticator": {
            "domain_controller": "tests.support.wsgidav_server._Right",
            "accept_basic": True,
            "accept_digest": True,
            "default_to_digest": False,
            "trusted_auth_header": "HTTP_X_TESTS_USER",
        },
        "tests.front": front,
        "verbose": 1,
        "logging": {"enable_loggers": []},
        "dir_browser": {"enable": True, "directory_slash": False},
    }
    front.append(Front(WsgiDAVApp(config), room))
    server = wsgi.Server(("127.0.0.1", 0), front[0], numthreads=16, timeout=20)
    server.prepare()
    sys.stdout.write(f"{server.bind_addr[1]}\n")
    sys.stdout.flush()

    def end() -> None:
        sys.stdin.buffer.read()
        server.stop()

    threading.Thread(target=end, daemon=True).start()
    server.serve()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
