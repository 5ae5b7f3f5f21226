"""Adding a way into the vault, in the user's command: it is made, opened from storage, and only then told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chatkeep.daemon.cli import ask, paper, rotating
from chatkeep.daemon.cli.ceremony import Asking, Means
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.slots import KINDS, plain
from chatkeep.daemon.cli.unlocking import Secret
from chatkeep.daemon.cli.ways import warnings

if TYPE_CHECKING:
    from chatkeep.daemon.vault.create import Way
    from chatkeep.daemon.vault.unlocked import Enrolment, UnlockedVault
    from chatkeep.providers.base import Provider

MEANS: Final[Mapping[str, Means]] = {"passkey": "browser", "security-key": "security-key"}
"""By what each kind of passkey is asked for."""
LABELS: Final = {"passkey": "passkey", "security-key": "security key"}
_SYNCED: Final = {
    True: "Whoever keeps it for you copies it to your other devices.",
    False: "It is on that one device, and nowhere else.",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A way in that was added and opened. `synced`: of a passkey, whether a vendor copies it."""

    slot_id: bytes
    kind: str
    label: str
    synced: bool | None = None


def passkey(
    out: Output, providers: Sequence[Provider], enrolment: Enrolment, secret: Secret, kind: str, label: str
) -> Made:
    """Adds a passkey: three gestures, then the slot is opened from storage. Its page shows that it worked only after.

    `secret` says how long a gesture is waited for, and the vault's name. Raises as `vault.create.add_slot` does,
    CeremonyError, and PasskeyRefused; a ceremony that fails leaves nothing in storage.
    """
    from chatkeep.daemon.keys.methods import PasskeyMethod
    from chatkeep.daemon.keys.passkey import PasskeyParams
    from chatkeep.daemon.vault.create import Way, add_slot
    from chatkeep.daemon.vault.members import slot_members

    members = slot_members(providers, enrolment.vault.records)
    exclude = [slot.params.credential for slot in members.slots.values() if isinstance(slot.params, PasskeyParams)]
    with Asking(out, MEANS[kind], "enrol", secret.vault_name(), deadline=secret.patience) as ceremony:
        method = PasskeyMethod(ceremony, exclude)
        way = Way(method, label or LABELS[kind])
        try:
            slot_id = add_slot(providers, enrolment, way, time.time_ns())
        except BaseException:
            if method.synced is not None:  # it is there by now, wherever it is kept
                out.note("The passkey that was made is not to be relied on. Delete it where it is kept.")
            raise
        finally:
            method.wipe()
    return Made(slot_id, method.kind, way.label, method.synced)


def typed(
    out: Output,
    providers: Sequence[Provider],
    enrolment: Enrolment,
    kind: str,
    label: str,
    key_file: Path | None,
    passphrase_file: Path | None,
) -> Made:
    """Adds a recovery key or a passphrase. Raises as `vault.create.add_slot`, `paper` and `ask` do."""
    from chatkeep.daemon.vault.create import add_slot

    way = _typed_way(out, kind, label, key_file, passphrase_file)
    try:
        slot_id = add_slot(providers, enrolment, way, time.time_ns())
    except BaseException:
        if key_file is not None:
            out.note(f"Do not keep {printable(str(key_file))}: it was not shown that this key opens the vault.")
        raise
    return Made(slot_id, way.method.kind, way.label)


def _typed_way(out: Output, kind: str, label: str, key_file: Path | None, passphrase_file: Path | None) -> Way:
    from chatkeep.daemon.keys import recovery
    from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod
    from chatkeep.daemon.vault.create import Way

    if kind == "recovery":
        new = recovery.generate()
        if key_file is None:
            paper.hand_over(out, new)
        else:
            paper.write(key_file, new)
        return Way(RecoveryMethod(new), label or "recovery key")
    phrase = ask.passphrase(out, passphrase_file, new=True, option="--new-passphrase-file")
    return Way(PassphraseMethod(lambda: bytearray(phrase)), label or "passphrase")


def ways(providers: Sequence[Provider], vault: UnlockedVault) -> list[dict[str, Any]]:
    """The ways in that count in the newest epoch, the oldest first; then those of which damage hides it."""
    from chatkeep.daemon.vault.members import slot_members

    members = slot_members(providers, vault.records)
    found = [rotating.way_of(vault, slot_id, slot) for slot_id, slot in members.slots.items()]
    found.sort(key=lambda way: way["since"] or "")
    return found + [rotating.way_of(vault, slot_id, None) for slot_id in members.doubtful_slots]


def tell(
    out: Output,
    made: Made,
    found: Sequence[Mapping[str, Any]],
    gone: Mapping[str, list[bytes]],
    key_file: Path | None,
) -> None:
    """The result of `key add`. `found`: the ways in that there are now; `gone`: those that a provider lacks."""
    codes = warnings(found)
    value: dict[str, Any] = {
        "id": made.slot_id.hex(),
        "kind": made.kind,
        "label": made.label,
        "synced": made.synced,
        "recovery_key_file": key_file,
        "lacking": plain(gone),
        "warnings": codes,
    }
    lines = [f"Added and tried: a {KINDS[made.kind]} opens the vault now."]
    if made.synced is not None:
        lines.append(_SYNCED[made.synced])
    out.result(value, *lines)
    if not out.as_json:
        for line in [*rotating.lacking_lines(out, gone), *rotating.warning_lines(out, codes)]:
            out.note(line)
