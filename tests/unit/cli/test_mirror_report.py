"""What a mirror says in the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chatkeep.daemon.cli.mirror_work import MirrorReport
from chatkeep.daemon.cli.output import Output


@pytest.mark.parametrize(
    ("hands_over", "said"), [(False, "usb has everything."), (True, "usb: everything was handed over.")]
)
def test_another_program_may_still_have_to_upload_it(hands_over: bool, said: str) -> None:
    plan: Any = SimpleNamespace(let_go=0, strangers=0, findings=[])
    report = MirrorReport(["disk"], "usb", dry_run=False, plan=plan, hands_over=hands_over)
    assert list(report.lines(Output(as_json=False)))[-1] == said
