"""`chatkeep rebuild`: after this device's records were lost, what is in the vault is read back, with a secret."""

from __future__ import annotations

import click

from chatkeep.daemon.cli import by_daemon, unlocking
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import counted, size
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret, secret_options
from chatkeep.daemon.service import device, storage


@click.command(cls=Command, short_help="Read back what is in the vault, after records were lost.")
@secret_options
@pass_frame
def rebuild(frame: Frame, secret: Secret) -> int:
    """Read back what is in the vault, after this device's records were lost.

    The next backup then sends only what is not there. Every provider must be there to be asked what it has. Nothing in
    storage is changed; on a device whose records are whole nothing is done.
    """
    from chatkeep.daemon.backup.rebuild import rebuild as read_back
    from chatkeep.daemon.cli import proving, reading
    from chatkeep.daemon.service.engine.start import look_again, records
    from chatkeep.daemon.vault.reader import VaultReader
    from chatkeep.providers.wrap import Retrying

    config, out = frame.config(), frame.out
    credential = device.load_credential(config)
    try:
        with storage.opened(config.providers, patient=False) as opened:
            providers = [Retrying(one) for one in opened]
            with (
                unlocking.unlock(out, providers, secret, pin=credential.pin) as vault,
                by_daemon.borrowed(config, "rebuild", out),
                records(config, credential, lambda notice: out.note(tell(notice).text)) as state,
                out.progress() as step,
            ):
                proving.prove_in(frame, config, state, vault)
                start = look_again(config, credential, state, providers)
                if not start.needs_rebuild:
                    out.result({"needed": False}, "This device's records are whole: there is nothing to rebuild.")
                    return 0
                found = read_back(
                    state,
                    VaultReader(providers, vault),
                    providers,
                    credential.device_id,
                    lambda done, total: step("reading", done, total),
                )
                start.rebuilt()
    finally:
        credential.wipe()
    value = {
        "needed": True,
        "chains": len(found.streams),
        "known_blobs": found.blobs,
        "known_bytes": found.content,
        "lacking_blobs": found.lacking,
        "findings": [plain_error(finding) for finding in found.findings],
    }
    lines = [
        f"Read back: {counted(len(found.streams), 'chain')} of snapshots, {size(found.content)} that are in the vault.",
        "Next: chatkeep backup. It reads everything again, and sends what is not there.",
    ]
    if found.lacking:
        lines.insert(1, f"{counted(found.lacking, 'blob')} not every provider has; they are sent again.")
    out.result(value, *lines)
    if not out.as_json:
        reading.tell_findings(out, found.findings)
    return reading.weight(found.findings)
