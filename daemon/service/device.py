"""This device: its key for writing, its records."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatkeep.config.errors import ChatkeepError

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.state import State
    from chatkeep.daemon.vault.credential import WriterCredential
    from chatkeep.daemon.vault.epoch import EpochPin, EpochRecord
    from chatkeep.daemon.vault.follow import Followed
    from chatkeep.providers.base import Provider

CREDENTIAL: Final = "chatkeep-writer"
"""The file's name in the state directory, and that of the systemd credential."""
_ASIDE: Final = "removed-"
_STALE: Final = 86400  # seconds; no write lasts a day
_ID_SIZE: Final = 16
_OPEN_PART: Final = struct.Struct(">8x32sI32s")  # vault and device id, epoch, hash of its record


def credential_file(config: Config) -> Path:
    """Where the writer credential is: what systemd passed to this process, else in the state directory."""
    return _passed() or config.state_dir / CREDENTIAL


def is_set_up(config: Config) -> bool:
    """Whether this device was enrolled in a vault."""
    return credential_file(config).exists()


def load_credential(config: Config) -> WriterCredential:
    """The key for writing. Raises CredentialRefused, UnsupportedVersion, Malformed.

    What systemd passes stays as it was when it was given to systemd. A later epoch that this device went on to is in
    the state directory, and counts if it is of the very same device.
    """
    return _load(config)[0]


def _load(config: Config) -> tuple[WriterCredential, Path]:
    from chatkeep.daemon.vault.credential import WriterCredential

    path, own = credential_file(config), config.state_dir / CREDENTIAL
    credential = WriterCredential.load(path)
    if path == own:
        return credential, path
    try:
        moved = WriterCredential.load(own)
    except ChatkeepError:
        return credential, path  # none there, or none that can be used: the device goes on from the one that was passed
    same = (moved.vault_id, moved.device_id) == (credential.vault_id, credential.device_id)
    if same and moved.device_key.public == credential.device_key.public and moved.epoch > credential.epoch:
        credential.wipe()
        return moved, own
    moved.wipe()
    return credential, path


def follow(config: Config, providers: Sequence[Provider], credential: WriterCredential) -> Followed:
    """Goes on to the newest epoch of the vault, and saves where this device is now before it returns.

    The credential given is wiped if there is a new one.

    Raises:
        DeviceRemoved: this device was removed from the vault.
        CredentialRefused: the new one could not be saved; nothing was sealed with it.
    """
    from chatkeep.daemon.vault.follow import Followed
    from chatkeep.daemon.vault.follow import follow as followed
    from chatkeep.providers.durable import sweep_temporaries

    with contextlib.suppress(OSError):
        # Killed while it was saved, a copy of this device's key stays under another name.
        sweep_temporaries(config.state_dir, _STALE, time.time())
    findings: tuple[ChatkeepError, ...] = ()
    moved = False
    while True:
        found = followed(providers, credential)
        findings += tuple(one for one in found.findings if one.code not in {before.code for before in findings})
        if not found.moved:
            return Followed(credential, moved, findings)
        with _alone(config.state_dir):
            overtaken = _is_overtaken(config, credential)
            if not overtaken:
                try:
                    _save_moved(config, found.credential)
                except BaseException:
                    found.credential.wipe()
                    raise
        credential.wipe()
        if not overtaken:
            return Followed(found.credential, moved=True, findings=findings)
        # The keys were changed here meanwhile. What storage has shown since may be a rival: it does not count.
        found.credential.wipe()
        credential, moved = load_credential(config), True


def _is_overtaken(config: Config, credential: WriterCredential) -> bool:
    """Whether this device is in a later epoch by now, as `load_credential` then gives it."""
    try:
        there = load_credential(config)
    except ChatkeepError:
        return False
    try:
        same = (there.vault_id, there.device_id) == (credential.vault_id, credential.device_id)
        return same and there.epoch > credential.epoch
    finally:
        there.wipe()


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other process of this device looks where it is, and saves where it went, while the block runs."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield  # there is nothing to be alone in: whoever saves will tell
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def go_on(config: Config, records: Sequence[EpochRecord]) -> None:
    """Saves that this device is in the newest of these epochs, whose verified records were unlocked or made here.

    Until it is saved a rival could be shown to this device: by storage, with a root secret from before the change. A
    device that is not set up for this vault, is of another history, or was left out stays where it is; its next backup
    tells.

    Raises:
        CredentialRefused: it could not be saved. Its next backup follows.
    """
    if not is_set_up(config):
        return
    with _alone(config.state_dir):
        credential = load_credential(config)
        try:
            later = [record for record in records if record.epoch > credential.epoch]
            known = credential.pin.sha256 in {record.sha256 for record in records}
            if later and known and all(credential.device_id in record.devices for record in later):
                moved = credential.moved_to(later[-1])
                try:
                    _save_moved(config, moved)
                finally:
                    moved.wipe()
        finally:
            credential.wipe()


def removed_device(config: Config) -> bytes | None:
    """The id of this device, if it is set up and storage shows that it was removed from its vault; else None.

    One that systemd passes its credential to is none: a new credential would have to be given to systemd.
    """
    from chatkeep.daemon.service import storage
    from chatkeep.daemon.vault.errors import DeviceRemoved
    from chatkeep.daemon.vault.follow import follow as followed
    from chatkeep.providers.base import ProviderError

    if _passed() is not None or not is_set_up(config):
        return None
    credential = load_credential(config)
    try:
        with storage.opened(config.providers) as providers:
            found = followed(providers, credential)
            if found.moved:
                found.credential.wipe()
    except DeviceRemoved:
        return credential.device_id
    except ProviderError:
        pass
    finally:
        credential.wipe()
    return None


def set_aside(config: Config, device_id: bytes) -> Path:
    """Moves the records of a device that was removed into a directory of their own, which is returned.

    Raises:
        StateBusy: a backup of it is running. StateUnusable: they could not be moved.
    """
    from chatkeep.daemon.state import StateBusy, StateUnusable, glance

    if glance.is_in_use(config.state_dir):
        raise StateBusy(path=str(config.state_dir))
    aside = config.state_dir / f"{_ASIDE}{device_id.hex()[:8]}"
    try:
        aside.mkdir(mode=0o700, exist_ok=True)
        there = [entry for entry in config.state_dir.iterdir() if not entry.name.startswith(_ASIDE)]
        # The key last: as long as it is there, whoever is interrupted here can begin again.
        for entry in sorted(there, key=lambda entry: (entry.name == CREDENTIAL, entry.name)):
            entry.rename(aside / entry.name)
    except OSError as exc:
        raise StateUnusable(path=str(aside), errno=exc.errno) from exc
    return aside


def _save_moved(config: Config, credential: WriterCredential) -> None:
    from chatkeep.daemon.vault.errors import CredentialRefused

    path = config.state_dir / CREDENTIAL
    there = _glimpse(path)
    if path.exists() and (there is None or there[0] != credential.vault_id + credential.device_id):
        # Beside one that systemd passes there could be another device's: the one copy of its keys.
        raise CredentialRefused(reason="exists")
    credential.save(path, replace=True)


def _passed() -> Path | None:
    """The credential that systemd passed to this process, if it did."""
    passed = os.environ.get("CREDENTIALS_DIRECTORY")
    if passed and (Path(passed) / CREDENTIAL).exists():
        return Path(passed) / CREDENTIAL
    return None


def open_state(config: Config, credential: WriterCredential, *, anew: bool = False) -> State:
    """This device's records, taken for this process; `anew`: a damaged database is moved aside. Raises StateError."""
    from chatkeep.daemon.state import State

    return State.open(config.state_dir, credential.vault_id, credential.device_id, anew=anew)


@dataclass(frozen=True, slots=True)
class Pinned:
    """The epoch that this device seals to.

    Attributes:
        number, sha256: the epoch's, and the hash of its record.
        since: when this device was enrolled, or went on to it (ns).
        vault_id: whose epoch it is.
    """

    number: int
    sha256: bytes
    since: int
    vault_id: bytes


def pinned(config: Config) -> Pinned | None:
    """Where this device is, read from the open part of its credential alone; None when that cannot be read."""
    found = [_glimpse(path) for path in (credential_file(config), config.state_dir / CREDENTIAL)]
    passed, own = found
    if passed is None or own is None or own[0] != passed[0]:
        return None if passed is None else passed[1]
    return own[1] if own[1].number > passed[1].number else passed[1]


def _glimpse(path: Path) -> tuple[bytes, Pinned] | None:
    """The device's id and its epoch (docs/format.md, section 8)."""
    try:
        with path.open("rb") as file:
            vault_and_device, number, sha256 = _OPEN_PART.unpack(file.read(_OPEN_PART.size))
            since = os.fstat(file.fileno()).st_mtime_ns
            return vault_and_device, Pinned(number, sha256, since, vault_and_device[:_ID_SIZE])
    except (OSError, struct.error):
        return None


def device_id(config: Config) -> bytes | None:
    """This device's id; None when it is not set up. Raises as `load_credential`."""
    if not is_set_up(config):
        return None
    credential = load_credential(config)
    try:
        return credential.device_id
    finally:
        credential.wipe()


def vault_id(config: Config) -> bytes | None:
    """The id of the vault that this device writes; None when it is not set up. Raises as `load_credential`."""
    if not is_set_up(config):
        return None
    credential = load_credential(config)
    try:
        return credential.vault_id
    finally:
        credential.wipe()


def pin(config: Config) -> EpochPin | None:
    """The newest epoch that this device has seen; None when it is not set up. Raises as `load_credential`."""
    if not is_set_up(config):
        return None
    credential = load_credential(config)
    try:
        return credential.pin
    finally:
        credential.wipe()
