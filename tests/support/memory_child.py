"""The program whose memory is looked at: the product's own code, which stops at points where the test looks."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import ask
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import Event, Ready
from chatkeep.daemon.keys import hybrid, passphrase, root, secret, slots, wrapping
from chatkeep.daemon.keys.methods import PasskeyMethod, PassphraseMethod, RecoveryMethod, SlotMethod
from chatkeep.daemon.keys.passphrase import Argon2Params
from chatkeep.daemon.keys.secret import SecretBytes
from chatkeep.daemon.service import session
from chatkeep.daemon.service.wire import Facts
from chatkeep.daemon.vault import unlock
from chatkeep.providers.folder import FolderProvider

KEPT: Final[list[object]] = []
"""What a leaky variant keeps."""


class Injected(Exception):
    """A fault half way."""


def say(**what: object) -> None:
    """Tells the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def point(name: str, **more: object) -> None:
    """Says where it is, and waits until the test has looked."""
    say(point=name, **more)
    if not sys.stdin.readline():
        sys.exit("the test is gone")


# -- what a careless change would be ----------------------------------------------------------------------------------


def _on_every_secret(act: Callable[[memoryview], object]) -> None:
    begin = SecretBytes.__init__

    def careless(self: SecretBytes, buffer: bytearray) -> None:
        begin(self, buffer)
        act(self.view())

    SecretBytes.__init__ = careless  # type: ignore[method-assign]


def _keeps_bytes() -> None:
    _on_every_secret(lambda view: KEPT.append(bytes(view)))


def _keeps_half() -> None:
    _on_every_secret(lambda view: KEPT.append(bytes(view[:16])))


def _logs_hex() -> None:
    logger = logging.getLogger("careless")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            KEPT.append(record.getMessage())

    logger.addHandler(Keeper())
    _on_every_secret(lambda view: logger.debug("unlocked with %s", view.hex()))


def _sends_json() -> None:
    _on_every_secret(
        lambda view: KEPT.append(json.dumps({"v": 1, "key": base64.urlsafe_b64encode(view).decode()}).encode())
    )


def _keeps_a_frame() -> None:
    def fail(view: memoryview) -> None:
        copied = b"/" + bytes(view)
        raise ValueError(len(copied))

    def act(view: memoryview) -> None:
        try:
            fail(view)
        except ValueError as error:
            KEPT.append(error)

    _on_every_secret(act)


def _everywhere(was: Callable[..., Any], instead: Callable[..., Any]) -> None:
    """Puts something in the place of a function, in every module that has it."""
    name = was.__name__
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and getattr(module, name, None) is was:
            setattr(module, name, instead)


def _nothing(*_: object) -> None:
    pass


def _wipes_nothing() -> None:
    _everywhere(secret.wipe, _nothing)


def _forgets_nothing() -> None:
    _everywhere(secret.forget, _nothing)
    _everywhere(secret.take_over, bytearray)


LEAKS: Final = {
    "bytes": _keeps_bytes,
    "half": _keeps_half,
    "hex": _logs_hex,
    "json": _sends_json,
    "frame": _keeps_a_frame,
    "no wiping": _wipes_nothing,
    "no overwriting": _forgets_nothing,
}


# -- unlocking --------------------------------------------------------------------------------------------------------


def _tell(event: Event) -> None:
    if isinstance(event, Ready):
        say(page=event.url)


@contextlib.contextmanager
def _method(kind: str, file: str) -> Iterator[SlotMethod]:
    """As the commands have it."""
    out = Output()
    if kind == "recovery":
        key = ask.recovery_key(out, Path(file))
        try:
            yield RecoveryMethod(key)
        finally:
            key.wipe()
    elif kind == "passphrase":
        method = PassphraseMethod(lambda: ask.passphrase(out, Path(file)))
        try:
            yield method
        finally:
            method.wipe()
    else:
        with ChildCeremony(
            "browser", vault="a vault", user="a key", steps=1, tell=_tell, deadline=120, open_browser=False
        ) as ceremony:
            asking = PasskeyMethod(ceremony)
            try:
                say(ceremony=ceremony._process.pid)
                yield asking
            except ChatkeepError:
                raise
            else:
                ceremony.end()
            finally:
                asking.wipe()


WAYS: Final[dict[str, Callable[..., Any]]] = {
    "read": unlock.unlock,
    "enrol": unlock.unlock_to_enrol,
    "prune": unlock.unlock_to_prune,
}


def unlocking(storage: str, kind: str, file: str, way: str, leak: str | None) -> None:
    """Unlocks, wipes, and goes on living."""
    if leak is not None:
        LEAKS[leak]()
    point("begun")
    code = None
    try:
        with _method(kind, file) as method:
            opened = WAYS[way](FolderProvider("disk", Path(storage)), method)
        try:
            point("unlocked")
        finally:
            opened.wipe()
        del opened, method
    except ChatkeepError as error:
        code = error.code
    point("wiped", code=code)


def interrupted(storage: str, file: str) -> None:
    """Unlocks again and again; each time it fails one step later, until it does not."""
    counted, at = 0, 0

    def failing(step: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted == at:
                raise Injected
            return step(*args, **kwargs)

        return instead

    for step in (secret.derive, wrapping.unwrap):
        _everywhere(step, failing(step))
    for owner, names in ((root, ("HybridPrivate", "SigningKey")), (slots, ("HybridPrivate",))):
        for name in names:
            was = getattr(owner, name)
            made = getattr(was, "from_seed", was)
            setattr(owner, name, SimpleNamespace(from_seed=failing(made)) if made is not was else failing(made))
    provider = FolderProvider("disk", Path(storage))
    while counted == at:
        at, counted = at + 1, 0
        with contextlib.suppress(Injected), _method("recovery", file) as method:
            unlock.unlock_to_enrol(provider, method).wipe()
        point("failed" if counted == at else "done", at=at)


def handing_over(storage: str, kind: str, file: str, place: str) -> None:
    """Unlocks for a session, begins it, and ends it."""
    provider = FolderProvider("disk", Path(storage))
    with _method(kind, file) as method:
        vault, seeds = unlock.unlock_to_hand_over(provider, method)
    point("unlocked")
    until = session_end()
    keys = session.SessionKeys(
        Facts(vault.vault_id, vault.head.sha256, vault.slot_id, "recovery-64", "", until, 1), seeds
    )
    about = session.start(keys, Path(place))
    vault.wipe()
    del vault, keys, seeds, method
    found = session.find(about.facts.vault_id, Path(place))
    assert found is not None
    with found:
        point("session", pid=found.pid, hardened=about.hardened)
    point("locked", ended=session.lock(about.facts.vault_id, Path(place)))


def session_end() -> int:
    """In an hour."""
    import time

    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9


# -- single steps -----------------------------------------------------------------------------------------------------


def _derived(given: bytearray) -> None:
    secret.wipe(secret.derive(given, b"info", 64, bytes(32)))


def _stretched(given: bytearray) -> None:
    secret.wipe(passphrase.stretch(given, Argon2Params(65_536, 1, 1, b"s" * 32)))


def _paired(given: bytearray) -> None:
    hybrid.HybridPrivate.from_seed(given).wipe()


def _wrapped(given: bytearray) -> None:
    wrapping.wrap(given, b"not a secret, as far as is known", b"bound")


def _unwrapped(given: bytearray) -> None:
    wrapped = wrapping.wrap(bytearray(32), given, b"bound")
    secret.wipe(wrapping.unwrap(bytearray(32), wrapped, b"bound"))


def _opened(given: bytearray) -> None:
    private = hybrid.HybridPrivate.from_seed(bytearray(32))
    secret.wipe(secret.take_over(private.open(private.public.seal(given, b"info"), b"info")))


STEPS: Final = {
    "derive": _derived,
    "stretch": _stretched,
    "pair": _paired,
    "wrap": _wrapped,
    "unwrap": _unwrapped,
    "open": _opened,
}


def step(name: str, descriptor: int, careless: bool) -> None:
    """One step with one secret, which is looked for at once, before anything else can happen to overwrite it."""
    if careless:
        _does_nothing_again()
    given = bytearray(32)
    with open(descriptor, "rb", buffering=0) as stream:
        assert stream.readinto(given) == 32
    act = STEPS[name]
    act(bytearray(b"1" * 32))  # what is done once only is done
    point("given")
    act(given)
    secret.wipe(given)
    point("done")


def _does_nothing_again() -> None:
    """As it was before anybody looked: what is there to be overwritten is not."""

    class Once:
        def __init__(self, *args: Any) -> None:
            self._args = args

        def derive_into(self, source: Any, target: Any) -> int:
            return derive(*self._args).derive_into(source, target) if any(source) else 0

    class Pair:
        @staticmethod
        def from_seed_bytes(seed: Any) -> Any:
            return made(seed) if any(seed) else None

    def argon2(typed: bytearray, *rest: Any) -> None:
        if any(typed):
            stretch(typed, *rest)

    derive, made, stretch = HKDF, MLKEM768PrivateKey.from_seed_bytes, passphrase._argon2
    for module, name, instead in (
        (secret, "HKDF", Once),
        (hybrid, "MLKEM768PrivateKey", Pair),
        (passphrase, "_argon2", argon2),
        (wrapping, "_again", _nothing),
    ):
        assert hasattr(module, name)
        setattr(module, name, instead)


def main() -> None:
    """Plays a scene."""
    said = json.loads(sys.argv[1])
    scenes: dict[str, Callable[..., None]] = {
        "unlocking": unlocking,
        "interrupted": interrupted,
        "handing_over": handing_over,
        "step": step,
    }
    scenes[said.pop("scene")](**said)


if __name__ == "__main__":
    main()
