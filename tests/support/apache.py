"""Apache with mod_dav: a real server, as a process of its own with a configuration of its own.

It runs without privileges, below a directory of its own, and ends with the process that started it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import certify
from tests.support.nobody import NOBODY
from tests.support.ports import free_port

USER, PASSWORD, REALM = "keeper", "correct horse", "vault"
DEADLINE = 30.0
MODULES = Path("/usr/lib/apache2/modules")

_CONFIGURATION = """
ServerRoot "{room}"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile "{room}/pid"
ErrorLog "{room}/error.log"
Mutex file:{room}
{modules}
StartServers 1
ServerLimit 1
ThreadsPerChild 24
MaxRequestWorkers 24
Timeout 20
KeepAliveTimeout 20
MaxKeepAliveRequests 0
TypesConfig /dev/null
DocumentRoot "{room}/files"
DavLockDB "{room}/locks"
LogFormat "%m %U %>s %I %{{Range}}i" plain
CustomLog "{room}/access.log" plain
<Directory "{room}/files">
    AllowOverride All
    Dav On
    Require valid-user
    AuthName "{realm}"
    AuthBasicProvider file
    AuthUserFile "{room}/basic"
    AuthType Basic
</Directory>
<Directory "{room}/files/digest">
    AuthType Digest
    AuthDigestProvider file
    AuthUserFile "{room}/digest"
</Directory>
<Directory "{room}/files/readonly">
    <LimitExcept GET HEAD OPTIONS PROPFIND>
        Require all denied
    </LimitExcept>
</Directory>
<Directory "{room}/files/small">
    LimitRequestBody 100000
</Directory>
<Directory "{room}/files/open">
    Require all granted
</Directory>
Listen 127.0.0.1:{secure_port}
<VirtualHost 127.0.0.1:{secure_port}>
    SSLEngine On
    SSLCertificateFile "{room}/certificate.pem"
    SSLCertificateKeyFile "{room}/key.pem"
</VirtualHost>
Redirect 301 /moved http://127.0.0.1:{port}/there
Redirect 307 /elsewhere http://localhost:9/
Redirect 507 /full
"""
_LOADED = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "auth_digest"),
    *("dav", "dav_fs", "mime", "dir", "autoindex", "alias", "setenvif", "ssl", "socache_shmcb"),
)


@dataclass(frozen=True)
class Apache:
    """A running server. `room` holds its files (in `files`), logs and configuration."""

    port: int
    secure_port: int
    room: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def secure_url(self) -> str:
        """The same by https, with `certificate`, which nobody else trusts."""
        return f"https://127.0.0.1:{self.secure_port}"

    @property
    def certificate(self) -> Path:
        return self.room / "certificate.pem"

    def directory(self, name: str) -> Path:
        """A directory that the server may write into; made if it is not there."""
        path = self.room / "files" / name
        for each in (*reversed([each for each in path.parents if self.room in each.parents]), path):
            if not each.is_dir():
                each.mkdir()
                _hand_over(each)
        return path

    @contextlib.contextmanager
    def other_password(self) -> Iterator[None]:
        """While the password that was right is wrong. Apache reads the file at every request."""
        file = self.room / "basic"
        before = file.read_text()
        _replace(file, _line_of("another"))
        try:
            yield
        finally:
            _replace(file, before)

    @contextlib.contextmanager
    def limited(self, name: str) -> Iterator[None]:
        """While Apache takes no body into a directory (LimitRequestBody): it answers 413, as for a body too large."""
        file = self.directory(name) / ".htaccess"
        file.write_text("<If \"%{REQUEST_METHOD} == 'PUT'\">\nLimitRequestBody 1\n</If>\n")
        _hand_over(file)
        try:
            yield
        finally:
            file.unlink()

    def log(self) -> list[str]:
        """The requests that were answered, one a line: method, path, status, bytes received, range asked for. The last
        ones may come a moment after their replies."""
        return (self.room / "access.log").read_text().splitlines()

    def logged(self, wanted: Callable[[str], bool], count: int) -> list[str]:
        """The lines that are wanted, once there are so many."""
        until = time.monotonic() + DEADLINE
        while len(found := [line for line in self.log() if wanted(line)]) < count:
            assert time.monotonic() < until, found
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def apache() -> Iterator[Apache]:
    """Starts a server and ends it."""
    program = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or not (MODULES / "mod_dav_fs.so").exists():
        raise AssertionError("the tests of WebDAV need Apache: apt-get install apache2-bin")
    # Not below pytest's own directory, which other users may not enter.
    room = Path(tempfile.mkdtemp(prefix="chatkeep-apache-"))
    try:
        for each in ("files", "files/digest", "files/readonly", "files/small", "files/open"):
            (room / each).mkdir()
        for path in (room, *room.rglob("*")):
            _hand_over(path)
        port, secure_port = free_port(), free_port()
        _configure(room, port, secure_port)
        with _started(program, room, port):
            yield Apache(port, secure_port, room)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _configure(room: Path, port: int, secure_port: int) -> None:
    modules = "\n".join(f'LoadModule {each}_module "{MODULES}/mod_{each}.so"' for each in _LOADED)
    text = _CONFIGURATION.format(room=room, port=port, secure_port=secure_port, modules=modules, realm=REALM)
    _certify(room)
    (room / "apache.conf").write_text(text)
    (room / "basic").write_text(_line_of(PASSWORD))
    digest = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
    (room / "digest").write_text(f"{USER}:{REALM}:{digest}\n")


@contextlib.contextmanager
def _started(program: str, room: Path, port: int) -> Iterator[None]:
    command = [program, "-D", "FOREGROUND", "-f", str(room / "apache.conf")]
    if os.geteuid() == 0:  # Apache refuses to serve as root, and permissions would refuse root nothing
        command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *command]
    command = ["setpriv", "--pdeathsig", "TERM", *command]
    with (room / "out").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd="/") as process:
        try:
            _wait(process, room, port)
            yield
        finally:
            process.terminate()
            process.wait(DEADLINE)


def _wait(process: subprocess.Popen[bytes], room: Path, port: int) -> None:
    until = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            connection.request("OPTIONS", "/open/")
            connection.getresponse().read()
            connection.close()
            return
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"Apache did not start: {(room / 'out').read_text()}")
        time.sleep(0.02)


def _line_of(password: str) -> str:
    # The quickest of the forms that Apache takes: it is computed at every request.
    hashed = base64.b64encode(hashlib.sha1(password.encode(), usedforsecurity=False).digest()).decode()
    return f"{USER}:{{SHA}}{hashed}\n"


def _replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    _hand_over(fresh)
    fresh.replace(file)


def _hand_over(path: Path) -> None:
    path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def _certify(room: Path) -> None:
    for name, pem in zip(("certificate.pem", "key.pem"), certify("127.0.0.1"), strict=True):
        (room / name).write_bytes(pem)
        _hand_over(room / name)
