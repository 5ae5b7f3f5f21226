"""`chatkeep join`: another device for a vault that exists, or this one again after its state was lost."""

from __future__ import annotations

import click

from chatkeep.daemon.cli import by_daemon, unlocking
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.init_command import make_state_dir, refuse_second
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import fields
from chatkeep.daemon.cli.unlocking import Secret, secret_options
from chatkeep.daemon.service import storage
from chatkeep.daemon.service.device import CREDENTIAL, removed_device, set_aside


@click.command(cls=Command, short_help="Let this device write a vault that exists.")
@secret_options
@pass_frame
def join(frame: Frame, secret: Secret) -> None:
    """Let this device write a vault that exists.

    Also the way back after the state directory was lost, or the device was removed from the vault: the older snapshots
    stay, and the next backup begins a chain of its own.
    """
    config, out = frame.config(), frame.out
    gone = removed_device(config)
    if gone is None:
        refuse_second(config)
    from chatkeep.config.paths import check_paths
    from chatkeep.daemon.vault.create import add_device

    check_paths(config)
    make_state_dir(config)
    with (
        storage.opened(config.providers) as providers,
        unlocking.unlock_to_enrol(out, providers, secret, None) as enrolment,
        by_daemon.borrowed(config, "join", out),
    ):
        credential = add_device(providers, enrolment)
        if gone is not None:
            set_aside(config, gone)
        credential.save(config.state_dir / CREDENTIAL)
    value = {
        "vault": credential.vault_id.hex(),
        "device": credential.device_id.hex(),
        "credential": config.state_dir / CREDENTIAL,
    }
    rows = [
        ("vault", credential.vault_id.hex()),
        ("this device", f"writes with {printable(str(config.state_dir / CREDENTIAL))}, and cannot read"),
    ]
    out.result(
        value, out.styled("This device writes the vault now.", "head"), "", *fields(rows), "", "Next: chatkeep backup"
    )
