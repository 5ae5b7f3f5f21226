"""A thief of an old root secret works with storage: the listed checkpoint is hidden, a forged older one shown."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.manifests import TestVault, make_vault
from tests.support.pruned import PrunedVault, told


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault()


@pytest.mark.parametrize("remove", [False, True])
def test_hidden_and_a_forged_older_one_shown_condemns_nothing(vault: TestVault, remove: bool) -> None:
    made = PrunedVault(vault, 9)
    made.prune(3, 1, 3)
    second = made.prune(4, 1, 3, 4)
    made.rotate({made.stream.stream_id: made.head(9)}, second, remove=remove)
    forged, raw = made.sign(dataclasses.replace(made.checkpoint(9, ()), number=1, prev=bytes(32)), epoch=1)
    made.put({str(forged): raw})
    assert made.walked() == ([9, 8, 7, 6, 5, 4, 3, 1], [])
    del made.provider.objects[str(made.checkpoints[0])]
    del made.provider.objects[str(second)]
    seqs, problems = made.walked()
    assert seqs[:6] == [9, 8, 7, 6, 5, 4]
    assert problems[0] == ("missing-object", None)


def test_what_an_older_one_keeps_is_kept_meanwhile(vault: TestVault) -> None:
    """Of a removed device nothing below a gap is known but by what is kept."""
    made = PrunedVault(vault, 9)
    first = made.prune(4, 1, 3, 4)
    second = made.prune(6, 1, 4, 6)
    made.rotate({made.stream.stream_id: made.head(9)}, second, remove=True)
    assert made.walked() == ([9, 8, 7, 6, 4, 1], [])
    raw = made.provider.objects.pop(str(second))
    assert str(first) in made.provider.objects
    reader = made.reader()
    chain = reader.chain(made.stream)
    assert [one.header.seq for one in chain.walk()] == [9, 8, 7, 6, 4, 1]
    assert told((*reader.findings, *chain.findings))[0] == ("missing-object", None)
    # Found again, it settles what it did, for the same reader too.
    made.put({str(second): raw})
    chain = reader.chain(made.stream)
    assert [one.header.seq for one in chain.walk()] == [9, 8, 7, 6, 4, 1]
