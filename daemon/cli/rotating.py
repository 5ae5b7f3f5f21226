"""New keys for the vault, in the user's command: who stays is shown and asked, then it is done and tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.problems import nearest
from chatkeep.daemon.cli import ask, by_daemon, proving, sessions, unlocking, used
from chatkeep.daemon.cli.choosing import LEAST_PREFIX
from chatkeep.daemon.cli.devices_seen import Seen, devices_seen
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.measures import local_time, printable, stamp
from chatkeep.daemon.cli.output import Output, fields, paragraph
from chatkeep.daemon.cli.slots import KINDS
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret
from chatkeep.daemon.cli.ways import WORDS, warnings
from chatkeep.daemon.service import device, storage
from chatkeep.daemon.service.errors import SessionError
from chatkeep.daemon.vault.errors import VaultLocked

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.keys.slot_file import SlotFile
    from chatkeep.daemon.vault.epoch import EpochRecord
    from chatkeep.daemon.vault.members import Members
    from chatkeep.daemon.vault.rotate import Plan
    from chatkeep.daemon.vault.unlocked import UnlockedVault
    from chatkeep.providers.base import Provider

ID_DIGITS: Final = 32
SHOWN: Final = 8  # digits of an id


def yes_option(command: Any) -> Any:  # a decorator of click's kind
    """Adds `--yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask. Needed where nobody can answer.")(command)


def change(frame: Frame, secret: Secret, *, yes: bool, slots: Sequence[str] = (), devices: Sequence[str] = ()) -> None:
    """Goes on to the next epoch without these slots and devices, which are named by their ids or what they begin with.

    Raises what `vault.rotate` raises, and click.UsageError when nobody can be asked and `yes` is not given.
    """
    config, out = frame.config(), frame.out
    if not yes and (out.as_json or not ask.has_terminal()):
        raise click.UsageError("This asks before it changes anything. Where nobody can answer, give --yes.")
    from chatkeep.daemon.vault.members import read_members
    from chatkeep.daemon.vault.rotate import plan_rotation, rotate

    mine = device.device_id(config)
    with storage.opened(config.providers) as providers:
        storage.require_all(providers)
        with (
            unlocking.unlocked_newest(out, providers, secret, device.pin(config)) as (agreed, method),
            agreed.enrolment as enrolment,
        ):
            vault = enrolment.vault
            proving.prove(frame, vault)
            members = read_members(providers, vault.records)
            going = _slots_meant(slots, members), _devices_meant(devices, members)
            if agreed.finished and _is_done(going, members):
                _go_on(config, vault.records)
                sessions.end(out, vault.vault_id)
                _finished(out, vault)
                return
            plan = plan_rotation(providers, vault, *going)
            shown = Shown(vault, plan, mine, devices_seen(providers, vault))
            if not out.as_json:
                out.note("\n".join(shown.lines(out)))
            if not yes and not ask.agreed("Change the keys so?"):
                raise Cancelled(reason="declined")
            with by_daemon.borrowed(config, "new keys", out), out.progress() as step:
                step("Changing the keys and trying the way in", 0, None)
                record = rotate(providers, enrolment, plan)
                _try(providers, method, record.sha256, vault.vault_id)
                _go_on(config, (*vault.records, record))
            sessions.end(out, vault.vault_id)
            used.forget(config.state_dir, going[0])
            value = shown.value() | {"epoch": record.epoch, "record": record.sha256.hex(), "changed": True}
    out.result(value | {"finished": False}, *_done(out, record.epoch, shown))


def _go_on(config: Config, records: Sequence[EpochRecord]) -> None:
    with contextlib.suppress(ChatkeepError):  # the keys are changed; the next backup follows
        device.go_on(config, records)


class Shown:
    """What stays and what goes, for a person and for `--json`."""

    def __init__(self, vault: UnlockedVault, plan: Plan, mine: bytes | None, seen: Mapping[bytes, Seen]) -> None:
        self.plan = plan
        self._mine = mine
        self._seen = seen
        self.stays = [way_of(vault, slot_id, slot) for slot_id, slot in plan.slots.items()]
        self.goes = [way_of(vault, slot_id, slot) for slot_id, slot in plan.removed_slots.items()]
        self.devices = sorted(plan.devices)
        self.others = [one for one in self.devices if one != mine]
        self.going = sorted(plan.going)
        self.mine_goes = mine in plan.going

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "ways": [_plain_way(way) for way in self.stays],
            "removed_ways": [_plain_way(way) for way in self.goes],
            "devices": [self._device_value(one) for one in self.devices],
            "removed_devices": [self._device_value(one) for one in self.going],
            "findings": [plain_error(finding) for finding in self.plan.findings],
            "warnings": warnings(self.stays),
        }

    def lines(self, out: Output) -> list[str]:
        """For a person."""
        goes = [way_words(way) for way in self.goes] + [self.device_words(one) for one in self.going]
        stays = [way_words(way) for way in self.stays] + [self.device_words(one) for one in self.devices]
        rows = [(out.remark("goes", "bad"), "\n".join(goes))] if goes else []
        rows.append((out.remark("stays", "head"), "\n".join(stays)))
        told = [out.remark(tell(finding).text, "warn") for finding in self.plan.findings]
        told += warning_lines(out, warnings(self.stays))
        return [*fields(rows, indent=0), *told]

    def device_words(self, device_id: bytes) -> str:
        """A device, on a line."""
        name = "this device" if device_id == self._mine else "device"
        return f"{device_id.hex()[:SHOWN]}  {name}  {self._seen.get(device_id, Seen()).words()}"

    def _device_value(self, device_id: bytes) -> dict[str, Any]:
        host = self._seen.get(device_id, Seen()).host
        return {"id": device_id.hex(), "this_device": device_id == self._mine, "host": host}


def way_of(vault: UnlockedVault, slot_id: bytes, slot: SlotFile | None) -> dict[str, Any]:
    """What is shown of a way in: its label and since when it is there, as far as they open. Raises VaultLocked,
    SessionError.
    """
    from chatkeep.daemon.keys.slots import open_label

    way: dict[str, Any] = {"id": slot_id.hex(), "kind": None, "label": None, "since": None}
    if slot is None:
        return way
    way["kind"] = slot.kind
    try:
        found = open_label(slot, vault.opener(slot.epoch, vault.records[slot.epoch - 1].public.key_id))
        way |= {"label": found.text, "since": stamp(found.time), "shown": local_time(found.time)}
        if found.synced is not None:
            way["synced"] = found.synced
    except (VaultLocked, SessionError):
        raise  # nothing is wrong with the slot
    except ChatkeepError as exc:
        way["error"] = plain_error(exc)
        way["told"] = tell(exc).text
    return way


def lacking_lines(out: Output, lacking: Mapping[str, Sequence[bytes]]) -> list[str]:
    """What is said of ways in that some providers have no whole file of, as `slots.lacking` found them."""
    lines = []
    for provider, slot_ids in lacking.items():
        ids = ", ".join(slot_id.hex()[:8] for slot_id in slot_ids)
        said = f"{printable(provider)} has lost or damaged {ids}: with that storage alone it opens nothing."
        lines += [out.remark(said, "warn"), "New keys bring it there: chatkeep key rotate"]
    return lines


def warning_lines(out: Output, codes: Iterable[str]) -> list[str]:
    """What is said of ways in that are not enough, to a person."""
    said = []
    for code in codes:
        text, remedy = ("\n".join(paragraph(one)) for one in WORDS[code])
        said.append(f"{out.remark(text, 'warn')}\n{remedy}")
    return said


def kind_words(way: Mapping[str, Any]) -> str:
    """What kind of way in it is: of a passkey also whether a vendor copies it."""
    kind = KINDS.get(str(way["kind"]), "damaged way in")
    return kind if way.get("synced") is None else f"{kind}, {'synced' if way['synced'] else 'on one device'}"


def way_words(way: Mapping[str, Any]) -> str:
    """A way in, on a line."""
    kind = kind_words(way)
    plain = way["label"] in {None, "", KINDS.get(str(way["kind"]))}
    label = "" if plain else f'"{printable(way["label"])}"'
    since = f"since {way['shown']}" if way.get("shown") else ""
    return "  ".join(filter(None, (str(way["id"])[:SHOWN], kind, label, since)))


def meant(word: str, ids: Iterable[bytes], reason: str) -> bytes:
    """The one id that `word` is, or that begins so.

    Raises RotationRefused: `unknown-` or `several-` and `reason`.
    """
    from chatkeep.daemon.vault.errors import RotationRefused

    known = sorted(one.hex() for one in ids)
    lower = word.strip().lower()
    found = [one for one in known if one.startswith(lower)] if len(lower) >= LEAST_PREFIX else []
    if len(found) > 1:
        raise RotationRefused(reason=f"several-{reason}s", id=word, candidates=found)
    if not found:
        whole = len(lower) == ID_DIGITS and set(lower) <= set("0123456789abcdef")
        close = nearest(lower, known if whole else [one[: max(len(lower), SHOWN)] for one in known])
        raise RotationRefused(reason=f"unknown-{reason}", id=word, **({"nearest": close} if close else {}))
    return bytes.fromhex(found[0])


def _slots_meant(words: Sequence[str], members: Members) -> frozenset[bytes]:
    there = members.slots.keys() | members.doubtful_slots.keys()
    return frozenset(_meant_first(word, there, members.removed_slots, "slot") for word in words)


def _devices_meant(words: Sequence[str], members: Members) -> frozenset[bytes]:
    there = members.devices.keys() | members.doubtful_devices.keys()
    return frozenset(_meant_first(word, there, members.removed_devices, "device") for word in words)


def _meant_first(word: str, there: Iterable[bytes], removed: Iterable[bytes], reason: str) -> bytes:
    """Among those that count; a few digits may be those of one that was removed long ago, which is then told."""
    from chatkeep.daemon.vault.errors import RotationRefused

    try:
        return meant(word, there, reason)
    except RotationRefused as exc:
        if not str(exc.params["reason"]).startswith("unknown"):
            raise
        try:
            return meant(word, removed, reason)
        except RotationRefused:
            raise exc from None


def _is_done(going: tuple[frozenset[bytes], frozenset[bytes]], members: Members) -> bool:
    """Whether what was asked for is what the epoch did that was found half written, and finished."""
    return going[0] <= members.removed_slots and going[1] <= members.removed_devices.keys()


def _finished(out: Output, vault: UnlockedVault) -> None:
    value = {"epoch": vault.head.epoch, "record": vault.head.sha256.hex(), "changed": False, "finished": True}
    out.result(
        value,
        f"An earlier change of the keys had been cut short. It is finished now: epoch {vault.head.epoch}, everywhere.",
        "Look at what stays: chatkeep key list --labels. To change the keys once more, run this again.",
    )


def _try(providers: Sequence[Provider], method: Any, record: bytes, vault_id: bytes) -> None:
    """The way in that unlocked opens the new epoch too, from storage."""
    from chatkeep.daemon.vault.errors import EnrolmentFailed
    from chatkeep.daemon.vault.unlock import unlock

    with unlock(providers[0], method, vault_id) as vault:
        if vault.head.sha256 != record:
            raise EnrolmentFailed(provider=providers[0].name, name=str(vault.head.name), reason="other-keys")


def _done(out: Output, epoch: int, shown: Shown) -> list[str]:
    lines = [out.styled(f"The keys are changed: epoch {epoch}. The way in that unlocked was tried.", "head")]
    if shown.goes:
        lines.append(f"{', '.join(str(way['id'])[:SHOWN] for way in shown.goes)}: opens nothing newer than this.")
    if any(way["kind"] == "webauthn-prf" for way in shown.goes):
        lines.append("A removed passkey is still kept where it was made. Delete it there, so that nobody wonders.")
    lines += [
        f"{device_id.hex()[:SHOWN]}: nothing it writes counts any more. Its snapshots until now stay."
        for device_id in shown.going
    ]
    if shown.mine_goes:
        lines.append("This device backs up nothing any more, until: chatkeep join")
    if shown.others:
        lines.append("The other devices go on with the new keys at their next backup.")
    return lines


def _plain_way(way: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in way.items() if key not in {"shown", "told"}}
