"""On the path of a command: its USB ports are the sockets of a directory, and nothing else of it is changed.

fido2's own `CtapHidDevice` speaks CTAPHID with what is found; only where devices are found and opened is put elsewhere.
"""

from __future__ import annotations

import errno
import importlib.machinery
import importlib.util
import os
import socket
import stat
import sys
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKET = 64


class _SocketConnection:
    """A hidraw device, as it is read and written."""

    def __init__(self, descriptor: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(descriptor.path)

    def write_packet(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as exc:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from exc

    def read_packet(self) -> bytes:
        try:
            packet = self._socket.recv(_PACKET)
        except OSError:
            packet = b""
        if not packet:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # what hidraw says of a key that was pulled out
        return packet

    def close(self) -> None:
        self._socket.close()


def _list_descriptors() -> list[Any]:
    from fido2.hid.base import HidDescriptor

    directory = os.environ["TESTS_SOFT_KEYS"]
    found = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        try:
            plugged = stat.S_ISSOCK(os.stat(path).st_mode) and not name.endswith(".new")
        except FileNotFoundError:
            continue
        if plugged:
            found.append(HidDescriptor(path, 0, 0, _PACKET, _PACKET, name, None))
    return found


class _Patch(importlib.machinery.SourceFileLoader):
    """Loads fido2.hid, and puts its devices elsewhere. Loading it here at once would slow down every other program."""

    def exec_module(self, module: Any) -> None:
        super().exec_module(module)
        module.list_descriptors = _list_descriptors
        module.open_connection = _SocketConnection


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> Any:
        if name != "fido2.hid":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Patch(name, spec.origin)
        return spec


def _chain() -> None:
    """Runs the sitecustomize that this one stands in front of."""
    path = [part for part in sys.path if os.path.abspath(part or ".") != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if "TESTS_SOFT_KEYS" in os.environ:
    sys.meta_path.insert(0, _Finder)
_chain()
