"""The one line that `systemctl status` shows."""

from __future__ import annotations

import dataclasses

import pytest

from chatkeep.daemon.cli.daemon_line import status_line
from chatkeep.daemon.service.standing import (
    Doing,
    Fault,
    Mode,
    OutboxStanding,
    ProviderStanding,
    SessionStanding,
    SourceStanding,
    Standing,
)

GOOD = Standing(
    version="1",
    pid=1,
    since_ns=0,
    mode=Mode.RUNNING,
    vault="ab" * 16,
    session=SessionStanding(unlocked=False, uploads=True),
    outbox=OutboxStanding(0, 10, full=False),
    sources=(SourceStanding("chat", "events"),),
    providers=(ProviderStanding("disk", required=True),),
)
HELD = dataclasses.replace(GOOD, session=SessionStanding(unlocked=False, uploads=False))


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        (GOOD, "All is kept."),
        (dataclasses.replace(GOOD, mode=Mode.STARTING), "Starting: waits until no other command uses"),
        (dataclasses.replace(GOOD, mode=Mode.STOPPING), "Stopping."),
        (HELD, "Locked: run chatkeep unlock."),
        (
            dataclasses.replace(HELD, providers=(ProviderStanding("disk", required=True, waiting=2_000_000),)),
            "Locked, 2.00 MB wait: run chatkeep unlock.",
        ),
        (dataclasses.replace(GOOD, config_fault=Fault("config-invalid")), "run chatkeep config check."),
        (dataclasses.replace(GOOD, outbox=OutboxStanding(20, 10, full=True)), "nothing more is captured."),
        (
            dataclasses.replace(GOOD, providers=(ProviderStanding("di\x1bsk", required=True, fault=Fault("x")),)),
            "Uploads fail: di",
        ),
        (
            dataclasses.replace(
                GOOD, providers=(ProviderStanding("drive", required=True, fault=Fault("login-needed")),)
            ),
            "drive does not let this device in: run chatkeep providers login drive.",
        ),
        (
            dataclasses.replace(
                GOOD, providers=(ProviderStanding("s3", required=True, fault=Fault("storage-credential-refused")),)
            ),
            "run chatkeep providers test s3.",
        ),
        (
            dataclasses.replace(GOOD, sources=(SourceStanding("chat", "missing", fault=Fault("source-missing")),)),
            "Backups fail: chat.",
        ),
        (dataclasses.replace(GOOD, mode=Mode.LENT, lent="prune"), "Waits for chatkeep prune."),
        (dataclasses.replace(GOOD, mode=Mode.LENT), "Waits for another command."),
        (
            dataclasses.replace(GOOD, doing=(Doing("snapshot", "chat", 0), Doing("upload", "disk", 0))),
            "1 source being captured. Uploading to 1 provider.",
        ),
    ],
)
def test_what_a_person_must_do_is_said(standing: Standing, line: str) -> None:
    told = status_line(standing)
    assert line in told
    assert told.isprintable(), "a name can steer a terminal"
