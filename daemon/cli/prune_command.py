"""`chatkeep prune`: fewer snapshots, as the retention policy has it."""

from __future__ import annotations

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.unlocking import Secret, secret_options


@click.command(cls=Command, short_help="Let older snapshots go, as the retention policy has it.")
@click.option("--dry-run", is_flag=True, help="Only show what would go and what would be freed.")
@click.option("--yes", is_flag=True, help="Do it, also when much goes or something of the last 24 hours.")
@click.option(
    "--give-up-missing",
    is_flag=True,
    help="Go on without snapshots that are lost at every provider, and never come back.",
)
@secret_options
@pass_frame
def prune(frame: Frame, dry_run: bool, yes: bool, give_up_missing: bool, secret: Secret) -> int:
    """Let older snapshots of this device go, as the retention policy has it.

    Shows every snapshot with what becomes of it, and why. A checkpoint, signed with the vault's key, says what stays.
    Storage deletes the rest when the time of grace is over (chatkeep backup sees to that, without a secret). Until then
    prune with another policy takes it back.

    The policy is `retention` in the configuration. The newest snapshot always stays, and so does what some provider
    does not have yet. Nothing is ever pruned by itself. Snapshots of other devices are theirs to prune.

    Where storage lost snapshots that must live, nothing is pruned until --give-up-missing says that they are lost for
    good. It shows which, and asks. Every provider must be there: one that is away may have them.
    """
    from chatkeep.daemon.cli import prune_work

    report = prune_work.run(frame, secret, dry_run=dry_run, yes=yes, give_up=give_up_missing)
    report.show(frame.out)
    return report.exit()
