"""`chatkeep mirror`: what one provider has, at another one."""

from __future__ import annotations

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame


@click.command(cls=Command, short_help="Bring a provider up from another one.")
@click.argument("to", metavar="TO")
@click.option("--from", "source", metavar="NAME", help="Copy from this provider. Without it: from all others together.")
@click.option("--dry-run", is_flag=True, help="Only show what would be copied.")
@pass_frame
def mirror(frame: Frame, to: str, source: str | None, dry_run: bool) -> int:
    """Bring the provider TO up from the others: a new one, or one that lacks something.

    Everything of the vault is copied as it is, that of other devices too, and nothing is opened: no secret is needed.
    Each object is checked first. One that is damaged is taken from another provider, or told and left where it is.
    What was pruned and deleted does not come back. Nothing at TO is changed or deleted.

    TO is a provider of the configuration; add a new one there first. Its folder is made if nothing was ever stored
    there. Cut short, the same command goes on where it was; until it is done, TO passes for no vault.
    """
    from chatkeep.daemon.cli import mirror_work

    report = mirror_work.run(frame, to, source, dry_run=dry_run)
    frame.out.result(report.value(), *report.lines(frame.out))
    return report.exit()
