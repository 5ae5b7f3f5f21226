"""How a device without any secret goes on to a new epoch (docs/format.md, section 4).

It pinned a record, and the next one counts only through that: signed by its key, naming its hash, numbered one more.
Storage can keep the next record back, which leaves the device where it is, and can make it accept nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault.chain import Records, climb
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import EpochRecord
from chatkeep.daemon.vault.errors import DeviceRemoved, VaultError
from chatkeep.providers.base import Provider, ProviderError


@dataclass(frozen=True, slots=True)
class Followed:
    """Where a device is now.

    Attributes:
        credential: the one to write with. If `moved`, a new one: it has to be saved, durably, before anything is
            sealed with it, or the device would not know after a crash which keys it used; and the old one is to be
            wiped.
        findings: records that do not count, and a fork: the device stays before it.
    """

    credential: WriterCredential
    moved: bool
    findings: tuple[ChatkeepError, ...]


def follow(providers: Sequence[Provider], credential: WriterCredential) -> Followed:
    """Goes on to the newest epoch that the providers show and that follows from the pinned one, step by step.

    A provider that cannot be asked is passed over: another may show the next epoch, and the next backup asks again.

    Raises:
        DeviceRemoved: an epoch that follows does not list this device. Nothing it writes counts any more.
    """
    findings: list[ChatkeepError] = []
    newest: EpochRecord | None = None
    try:
        records = _records(providers, findings)
        for record in climb(records, credential.pin, findings):
            # Every step on its own: an epoch that left the device out ended it, whatever a later one says.
            if credential.device_id not in record.devices:
                raise DeviceRemoved(device=credential.device_id.hex(), epoch=record.epoch)
            newest = record
    except DeviceRemoved:
        raise
    except VaultError as exc:
        findings.append(exc)
    except ProviderError:
        pass  # it answered and then failed: whoever uploads there tells
    if newest is None:
        return Followed(credential, moved=False, findings=tuple(findings))
    return Followed(credential.moved_to(newest), moved=True, findings=tuple(findings))


def _records(providers: Sequence[Provider], findings: list[ChatkeepError]) -> Records:
    records = Records()
    for provider in providers:
        try:
            records.add(provider)
        except ProviderError:
            continue
        except VaultError as exc:
            exc.params.setdefault("provider", provider.name)
            findings.append(exc)
    return records
