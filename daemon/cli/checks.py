"""What `chatkeep doctor` looks at. Each check stands alone: one that fails hides no other."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.paths import check_paths
from chatkeep.config.problems import ConfigInvalid
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.measures import counted, printable, size
from chatkeep.daemon.cli.provider_findings import LOW_ROOM, Answer, Level, Verdict
from chatkeep.daemon.cli.provider_standing import hands_over
from chatkeep.daemon.cli.provider_trial import Trial
from chatkeep.daemon.cli.slots import counting, read_slots
from chatkeep.daemon.cli.telling import problem_line, tell
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.state import glance
from chatkeep.daemon.vault.errors import CredentialRefused, DeviceRemoved, NoVault, VaultError
from chatkeep.daemon.vault.follow import follow
from chatkeep.daemon.vault.names import VAULTS
from chatkeep.providers.base import ProviderError, StorageMissing, Unavailable

if TYPE_CHECKING:
    from chatkeep.config.model import Config, ProviderConfig
    from chatkeep.providers.base import Provider

LIBRARIES: Final = ("cryptography", "blake3", "zstandard", "xxhash", "msgspec", "PyYAML", "click", "rich")
_VERBS: Final = (
    (findings.Check.WRITE, "writes"),
    (findings.Check.READ, "reads"),
    (findings.Check.LIST, "lists"),
    (findings.Check.DELETE, "deletes"),
)
CLIENTS: Final = ("boto3", "google-auth", "httpx", "opendal")  # of storage; not everybody has them
_SHOWN: Final = 3  # conflict copies that are named
_UNKNOWN: Final = "unknown"
_BORN: Final = 1_767_225_600  # 2026: a clock before it was never set


class Check(NamedTuple):
    """One finding: level ok, warn or fail; what about; what was seen; what to do."""

    level: str
    about: str
    text: str
    remedy: str = ""


def examine(frame: Frame) -> list[Check]:
    """Every check that makes sense with the configuration there is."""
    found = list(_guarded("versions", _versions))
    try:
        config = frame.config()
    except ChatkeepError as exc:
        return [_failed("configuration", exc), *found]
    for about, look in (
        ("configuration", lambda: _configuration(config)),
        ("state directory", lambda: _state_dir(config)),
        ("this device", lambda: _credential(config)),
        ("records", lambda: _records(config)),
        ("clock", _clock),
    ):
        found += _guarded(about, look)
    with contextlib.ExitStack() as stack:
        providers: list[Provider] = []
        for one in config.providers:  # each by itself: one that cannot even be opened hides no other
            try:
                (provider,) = stack.enter_context(storage.opened([one], patient=False))
            except ChatkeepError as exc:
                found.append(_failed(one.name, exc))
                continue
            providers.append(provider)
            found += _guarded(one.name, lambda one=one, provider=provider: _provider(config, one, provider))  # type: ignore[misc]
        found += _guarded("ways in", lambda: _ways_in(config, providers))
        if removed := _guarded("this device", lambda: _removed(config, providers)):
            found = [check for check in found if check.about != "this device"] + removed
    return [*found[1:], found[0]]  # the versions are the least interesting


def _guarded(about: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except ChatkeepError as exc:
        return [_failed(about, exc)]
    except OSError as exc:
        return [Check("fail", about, f"{printable(str(exc.filename or ''))}: {exc.strerror}".lstrip(": "))]


def _failed(about: str, error: ChatkeepError, level: str = "fail") -> Check:
    told = tell(error, name_provider=False)
    return Check(level, about, told.text, told.remedy)


def _configuration(config: Config) -> Iterator[Check]:
    try:
        check_paths(config)
    except ConfigInvalid as exc:
        for problem in exc.problems:
            yield Check("fail", "configuration", problem_line(problem))
        return
    text = f"{counted(len(config.sources), 'source')}, {counted(len(config.providers), 'provider')}"
    yield Check("ok", "configuration", f"{printable(str(config.origin.file))}: {text}")
    if len(config.providers) < 2:
        yield Check(
            "warn",
            "configuration",
            "There is one provider. If it breaks, so does the backup.",
            "Add one in another place.",
        )


def _state_dir(config: Config) -> Iterator[Check]:
    path = config.state_dir
    if not path.exists():
        yield Check("warn", "state directory", f"{printable(str(path))} is not there yet", "Made by: chatkeep init")
        return
    facts = path.stat()
    if facts.st_uid != os.geteuid():
        yield Check("fail", "state directory", f"{printable(str(path))} belongs to another user", _own(path))
    elif facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        yield Check("fail", "state directory", f"Other users may look into it (mode {mode:04o})", f"chmod 700 {path}")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Check("fail", "state directory", f"{printable(str(path))} cannot be written", _own(path))
    else:
        yield Check("ok", "state directory", printable(str(path)))
    free = shutil.disk_usage(path).free
    low = free < LOW_ROOM
    yield Check(
        "warn" if low else "ok",
        "room here",
        f"{size(free)} free",
        "What waits to be uploaded lies here." if low else "",
    )


def _own(path: Path) -> str:
    return f"It must belong to the user who runs Chatkeep: chown {os.geteuid()} {path}"


def _credential(config: Config) -> Iterator[Check]:
    credential = device.load_credential(config)
    text = f"device {credential.device_id.hex()[:8]} writes the vault {credential.vault_id.hex()}"
    credential.wipe()
    yield Check("ok", "this device", text)


def _removed(config: Config, providers: Sequence[Provider]) -> Iterator[Check]:
    """Storage may say that this device was removed from its vault: its key for writing is still good for nothing."""
    if not device.is_set_up(config):
        return
    with contextlib.suppress(ProviderError, VaultError, CredentialRefused):  # told by their own checks
        credential = device.load_credential(config)
        try:
            seen = follow(providers, credential)
            if seen.moved:
                seen.credential.wipe()
        except DeviceRemoved as exc:
            yield _failed("this device", exc)
        finally:
            credential.wipe()


def _records(config: Config) -> Iterator[Check]:
    if not glance.exists(config.state_dir):
        yield Check("ok", "records", "none yet")
        return
    with glance.Glance(config.state_dir) as seen:
        objects, waiting = seen.waiting()
        lacking = seen.lacking()
    if lacking:
        yield Check(
            "fail",
            "records",
            f"gone from this device before it was uploaded: {counted(lacking, 'object')}",
            "Run chatkeep backup: it begins the snapshots anew. The disk of this device may be failing.",
        )
    else:
        text = f"{counted(objects, 'object')} of {size(waiting)} wait to be uploaded" if objects else "nothing waits"
        yield Check("ok", "records", text)


def _clock() -> Iterator[Check]:
    set_right = time.time() > _BORN
    text = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    yield (
        Check("ok", "clock", text)
        if set_right
        else Check("fail", "clock", f"{text} cannot be right", "Set the clock; snapshots carry its time.")
    )


def _provider(config: Config, one: ProviderConfig, provider: Provider) -> Iterator[Check]:
    """The quick part of `providers test`: what is well in one line, all else as it says it."""
    rows = list(Trial(provider, lambda _check: None, keyed=one.type != "folder", quick=True).rows())
    bad = [row for row in rows if row.level in {Level.WARN, Level.FAIL}]
    fails = findings.verdict(rows) is Verdict.BAD
    done = {row.check for row in rows if row.answer is Answer.YES}
    if not fails:
        verbs = [word for check, word in _VERBS if check in done]
        room = next((row.value for row in rows if row.check is findings.Check.ROOM and row.value is not None), None)
        text = f"{', '.join(verbs[:-1])} and {verbs[-1]}" if len(verbs) > 1 else "".join(verbs)
        yield Check("ok", one.name, text + ("" if room is None else f", {size(int(room))} free"))
    for row in bad:
        yield Check(row.level.value, one.name, row.text, row.remedy)
    if fails:
        return
    if hands_over(one):
        yield from _strays(one)
    try:
        vault_id = device.vault_id(config)
    except ChatkeepError:
        return  # told by its own check
    if vault_id is not None:
        storage.require_vault(provider, vault_id)
    elif not any(True for _ in provider.list(VAULTS)):
        yield _failed(provider.name, NoVault(provider=provider.name), "warn")


def _strays(one: ProviderConfig) -> Iterator[Check]:
    """What the program that synchronises a folder made of it."""
    from chatkeep.providers.synced import SyncedFolder

    found = SyncedFolder(one.name, one.options.path).strays()
    if found.copies:
        some = "; ".join(map(printable, found.copies[:_SHOWN])) + ("; ..." if len(found.copies) > _SHOWN else "")
        yield Check(
            "warn",
            one.name,
            f"{counted(len(found.copies), 'conflict copy', 'conflict copies')} in the folder: {some}",
            "The program that uploads it made them. They are used where the object itself is gone or damaged, and else "
            "only cost room. Remove them once chatkeep verify finds all well without them.",
        )
    if found.away:
        yield Check(
            "warn",
            one.name,
            f"{counted(len(found.away), 'object')} of the vault {'is' if len(found.away) == 1 else 'are'} not on this "
            "disk now",
            "A restore and verify need them: have the program that uploads the folder keep all of it on this disk.",
        )


def _ways_in(config: Config, providers: Sequence[Provider]) -> Iterator[Check]:
    counts: dict[str, set[bytes]] = {}
    for provider in providers:
        try:
            counts[provider.name] = {slot.slot_id for slot in read_slots([provider])}
        except (StorageMissing, Unavailable, NoVault):
            continue  # told by the check of the provider
        except ChatkeepError as exc:
            yield _failed(provider.name, exc, "warn")
    if not counts:
        return
    damaged = 0
    with contextlib.suppress(ChatkeepError):  # without the vault's own records, what lies there is all there is to say
        if (vault_id := device.vault_id(config)) is not None:
            # One that was removed lies in the storage still, and opens nothing.
            there = counting(providers, vault_id)
            counts = {name: slots & there for name, slots in counts.items()}
            damaged = len(there - set[bytes]().union(*counts.values()))
    every = set.union(*counts.values())
    for name, slots in counts.items():
        if slots != every:
            lacking = counted(len(every - slots), "way")
            text = f"{name} lacks {lacking} into the vault that another provider has"
            yield Check("warn", "ways in", text, "New keys bring it there: chatkeep key rotate")
    if damaged:
        yield Check(
            "warn",
            "ways in",
            f"{counted(damaged, 'way')} into the vault: damaged or lost in storage",
            "See which: chatkeep key list --labels. Bring the file back from a copy, or remove it and add another.",
        )
    if len(every) > 1:
        yield Check("ok", "ways in", counted(len(every), "key slot"))
    elif every:
        few = "There is one key slot: without its secret nobody can read the backup."
        yield Check("warn", "ways in", few, "Add another: chatkeep key add passkey")
    elif len(counts) == len(config.providers):  # else one that is away may have them
        none = "There is no key slot any more: nobody can read the backup."
        yield Check("fail", "ways in", none, "Bring the files in slots/ back from a copy of the storage.")


def _versions() -> Iterator[Check]:
    found = [
        f"chatkeep {_version('chatkeep')}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
    ]
    found += [f"{name} {_version(name)}" for name in LIBRARIES]
    found += [f"{name} {number}" for name in CLIENTS if (number := _version(name)) != _UNKNOWN]
    yield Check("ok", "versions", f"{', '.join(found[:3])}, Linux {platform.release()}\n{', '.join(found[3:])}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return _UNKNOWN
