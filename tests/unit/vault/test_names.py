import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.vault import names
from chatkeep.daemon.vault.errors import Malformed
from chatkeep.providers.base import is_name

ids = st.binary(min_size=16, max_size=16)
hashes = st.binary(min_size=32, max_size=32)
object_names = st.one_of(
    st.builds(names.VaultName, ids),
    st.builds(names.EpochName, st.integers(1, names.MAX_EPOCH), hashes),
    st.builds(names.SlotName, ids),
    st.builds(names.DeviceName, ids),
    st.builds(names.PackName, ids, hashes),
    st.builds(names.ManifestName, ids, ids, st.integers(1, names.MAX_SEQ), hashes),
    st.builds(names.CheckpointName, ids, st.integers(1, names.MAX_SEQ), hashes),
)

DEVICE = "0123456789abcdef0123456789abcdef"
DIGEST = "f0" * 32
SPELLED = [
    f"vault/{DEVICE}",
    f"epochs/00000001-{DIGEST}",
    f"slots/{DEVICE}.json",
    f"devices/{DEVICE}.json",
    f"d/{DEVICE}/p/{DIGEST}",
    f"d/{DEVICE}/s/{DEVICE}/000000000001-{DIGEST}",
    f"d/{DEVICE}/c/000000000001-{DIGEST}",
]


@given(object_names)
def test_every_name_parses_to_itself_and_every_provider_takes_it(name: names.ObjectName) -> None:
    assert names.parse(str(name)) == name
    assert is_name(str(name))


@pytest.mark.parametrize("text", SPELLED)
def test_spelling_is_that_of_the_format(text: str) -> None:
    assert str(names.parse(text)) == text


@pytest.mark.parametrize("text", SPELLED)
def test_any_other_spelling_is_refused(text: str) -> None:
    others = {text[:-1], text + "0", text + "\n", " " + text, "/" + text, text.replace("/", "//", 1), text + "/"}
    others |= {text.upper(), text.replace("f", "F"), text.replace("0", "\u0660", 1), text.replace("0", "\u00b2", 1)}
    others |= {re.sub("[0-9]{8,12}-", lambda m: "0" * (len(m[0]) - 1) + "-", text)}  # number zero
    others |= {text.replace("-", "_"), text.replace(".json", ".jso"), text.replace("d/", "d/../d/")}
    others.discard(text)
    for other in others:
        with pytest.raises(Malformed):
            names.parse(other)


def test_a_number_of_more_digits_than_the_format_has_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        str(names.ManifestName(bytes(16), bytes(16), names.MAX_SEQ + 1, bytes(32)))
    with pytest.raises(AssertionError):
        str(names.PackName(bytes(16), bytes(31)))


def test_prefixes_select_what_they_say() -> None:
    name = names.ManifestName(b"d" * 16, b"s" * 16, 7, bytes(32))
    for prefix in (
        names.device_prefix(b"d" * 16),
        names.streams_prefix(b"d" * 16),
        names.stream_prefix(b"d" * 16, b"s" * 16),
    ):
        assert str(name).startswith(prefix)
        assert not str(names.PackName(b"e" * 16, bytes(32))).startswith(prefix)
    assert str(names.PackName(b"d" * 16, bytes(32))).startswith(names.pack_prefix(b"d" * 16))


def test_the_grammar_covers_the_table_of_the_format_page() -> None:
    page = Path(__file__).parents[3] / "docs" / "format.md"
    rows = re.findall(r"^\| `((?:vault|epochs|slots|devices|d)/[^`]*)` \|", page.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(SPELLED)
    for row, text in zip(rows, SPELLED, strict=True):
        assert text.startswith(row.split("<")[0])
