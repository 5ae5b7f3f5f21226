"""Which security keys are plugged in, which of them can be used, and which of several is meant."""

from __future__ import annotations

import contextlib
import glob
import os
import queue
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fido2 import hid
from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid.base import HidDescriptor, parse_report_descriptor

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.errors import (
    CeremonyCancelled,
    NoPin,
    NoSecurityKey,
    SecurityKeyRemoved,
    SecurityKeyUnsupported,
)

LOST: Final = (OSError, hid.ConnectionFailure, struct.error)
"""What a key that is pulled out looks like: its device is gone, or ends in the middle of a packet."""
AGAIN: Final = (CtapError.ERR.USER_ACTION_TIMEOUT, CtapError.ERR.ACTION_TIMEOUT)
"""The key's own patience, some thirty seconds, has ended; the ceremony's has not."""
ORIGIN: Final = "http://localhost"

DEVICES: Final = "/dev/hidraw*"
DESCRIPTIONS: Final = "/sys/class/hidraw"


@dataclass(eq=False)
class Key:
    """A plugged-in key that can give a secret and verify its owner."""

    device: hid.CtapHidDevice
    ctap: Ctap2

    @property
    def trusts_fingers(self) -> bool:
        """Whether a fingerprint gives a token (CTAP 2.1). Without one nothing can be asked before the touch, and a
        credential of level 3 is found by nobody: such a key is used with its PIN.
        """
        options = self.ctap.info.options
        return bool(options.get("uv") and options.get("pinUvAuthToken"))


def plugged_in() -> list[HidDescriptor]:
    """Every security key that this user may open."""
    return list(hid.list_descriptors())  # type: ignore[no-untyped-call]


def forbidden() -> list[str]:
    """Devices that are security keys, and not this user's to open.

    What a device is may be read by everyone; the library passes over what it cannot open, as if it were not there.
    """
    found = []
    for path in sorted(glob.glob(DEVICES)):
        if os.access(path, os.R_OK | os.W_OK):
            continue
        described = os.path.join(DESCRIPTIONS, os.path.basename(path), "device", "report_descriptor")
        with contextlib.suppress(OSError, ValueError, struct.error), open(described, "rb") as file:
            parse_report_descriptor(file.read())
            found.append(path)
    return found


def usable(found: Sequence[HidDescriptor]) -> list[Key]:
    """The keys that can be used. One that cannot is passed over if there is another.

    Raises:
        SecurityKeyUnsupported, NoPin, NoSecurityKey: what is wrong with the first, when none can be used.
        SecurityKeyRemoved: none answered.
    """
    keys: list[Key] = []
    problems: list[ChatkeepError] = []
    for descriptor in found:
        try:
            device = hid.CtapHidDevice(descriptor, hid.open_connection(descriptor))  # type: ignore[no-untyped-call]
        except PermissionError:  # it may be read, and not written to
            problems.append(NoSecurityKey(reason="permission", device=descriptor.path))
            continue
        except (*LOST, CtapError) as exc:
            removed = SecurityKeyRemoved()
            removed.__cause__ = exc
            problems.append(removed)
            continue
        try:
            keys.append(_fit(device))
        except ChatkeepError as problem:
            problems.append(problem)
            device.close()
    if not keys:
        raise problems[0]
    return keys


def _fit(device: hid.CtapHidDevice) -> Key:
    try:
        ctap = Ctap2(device)
    except ValueError as exc:
        raise SecurityKeyUnsupported(reason="ctap1") from exc
    except (*LOST, CtapError) as exc:
        raise SecurityKeyRemoved from exc
    about = ctap.info
    if "hmac-secret" not in about.extensions or not about.pin_uv_protocols:
        raise SecurityKeyUnsupported(reason="hmac-secret")
    key = Key(device, ctap)
    if not (about.options.get("clientPin") or key.trusts_fingers):
        raise NoPin(reason="unset")
    if about.force_pin_change:
        raise NoPin(reason="change")
    return key


def chosen(keys: Sequence[Key], over: threading.Event) -> Key | None:
    """The key that the person touches; None when it is over before one is. The others stop blinking.

    Which key has a credential cannot be asked in silence: one that is protected as a vault's are is not admitted to by
    a key that has not verified its owner.

    Raises:
        CeremonyCancelled: declined at a key.
        SecurityKeyRemoved: all were pulled out.
    """
    touched: queue.SimpleQueue[Key | Exception] = queue.SimpleQueue()
    stops = [threading.Event() for _ in keys]
    waiting = [
        threading.Thread(target=_until_touched, args=(key, stop, touched.put), daemon=True)
        for key, stop in zip(keys, stops, strict=True)
    ]
    for thread in waiting:
        thread.start()
    answer: Key | Exception | None = None
    left = len(keys)
    while left and not over.is_set():
        with contextlib.suppress(queue.Empty):
            answer = touched.get(timeout=0.1)
            left -= 1
            if not isinstance(answer, SecurityKeyRemoved):
                break
    for stop in stops:
        stop.set()
    for thread in waiting:
        thread.join(_PATIENCE)
    if isinstance(answer, Exception):
        raise answer
    return answer


_PATIENCE: Final = 3.0  # seconds for a key to stop blinking; it notices within one


def _until_touched(key: Key, stop: threading.Event, tell: Callable[[Key | Exception], None]) -> None:
    while not stop.is_set():
        try:
            Fido2Client(key.device, DefaultClientDataCollector(ORIGIN)).selection(stop)
            return tell(key)
        except ClientError as exc:
            code = getattr(exc.cause, "code", None)
            if stop.is_set() or code in AGAIN:
                continue
            return tell(CeremonyCancelled(reason="key"))
        except (*LOST, CtapError, ValueError):  # or it answers what no key does: it is as good as gone
            return tell(SecurityKeyRemoved())
    return None
