"""The reader that needs no Chatkeep, in its parts: what they stand on, how they are joined, what each refuses."""

from __future__ import annotations

import ast
import itertools
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from chatkeep.daemon.cli import joining
from tests import independent_reader
from tests.support.independent import Objects, opened
from tests.support.manifests import make_vault
from tests.support.pruned import STREAM, PrunedVault

INSTALLED = {"blake3", "zstandard", "cryptography"}
FOLDER = files(joining.PACKAGE)
TEXTS = {part: FOLDER.joinpath(f"{part}.py").read_text("utf-8") for part in joining.PARTS}


def test_each_part_stands_on_those_before_it_and_on_nothing_of_this_project() -> None:
    there = {path.name.removesuffix(".py") for path in FOLDER.iterdir() if path.name.endswith(".py")}
    assert there == {*joining.PARTS, "__init__"}
    assert len(ast.parse(FOLDER.joinpath("__init__.py").read_text("utf-8")).body) == 1
    allowed = INSTALLED | sys.stdlib_module_names
    for part, text in TEXTS.items():
        for node in ast.walk(ast.parse(text)):
            for name in [alias.name for alias in node.names] if isinstance(node, ast.Import) else []:
                assert name.split(".")[0] in allowed, (part, name)
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, part
                assert (node.module or "").split(".")[0] in allowed or node.module in {
                    f"{joining.PACKAGE}.{other}" for other in joining.PARTS[: joining.PARTS.index(part)]
                }, (part, node.module)


def test_what_is_joined_is_all_of_the_parts_and_always_the_same() -> None:
    assert joining.joined() == joining.join(TEXTS) == independent_reader.TEXT
    defined = [{node.name for node in ast.parse(text).body if hasattr(node, "name")} for text in TEXTS.values()]
    whole = {node.name for node in ast.parse(independent_reader.TEXT).body if hasattr(node, "name")}
    assert whole == set().union(*defined)
    assert len(whole) == sum(map(len, defined)) > 60
    assert (ast.get_docstring(ast.parse(independent_reader.TEXT)) or "").startswith("Restores a Chatkeep vault")
    assert joining.PACKAGE not in independent_reader.TEXT


PART = '"""Of a test."""\n\nimport os\n\nimport blake3\n\n\ndef one() -> str:\n    return os.sep\n'


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (PART, "one is of"),
        (PART.replace("def one", "def os"), "os is of"),
        (PART.replace("def one() -> str:\n    return os.sep", "one: int = 3"), "one is of"),
        (PART.replace("import os", "from sys import path as one"), "renamed"),
        (PART.replace("import os", "from sys import one"), "one is of"),
        (PART.replace("one", "two").replace("    return", "    import sys\n\n    return"), "not at the top"),
    ],
)
def test_what_would_change_its_meaning_is_not_joined(other: str, told: str) -> None:
    good = joining.join({"a": PART, "b": PART.replace("one", "two")})
    assert good.count("import os") == 1
    compile(good, "joined", "exec")
    with pytest.raises(ValueError, match=told):
        joining.join({"a": PART, "b": other})


def points_of_small_order() -> list[bytes]:
    """All of them, from the curve of RFC 8032 itself: what a point becomes when the large prime order is taken out."""
    p, order = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
    d = -121665 * pow(121666, -1, p) % p

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        k = d * a[0] * b[0] * a[1] * b[1]
        x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, p)
        return x % p, (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, p) % p

    def times(n: int, point: tuple[int, int]) -> tuple[int, int]:
        found = (0, 1)
        for bit in f"{n:b}":
            found = add(found, found)
            found = add(found, point) if bit == "1" else found
        return found

    found = set()
    for y in range(2, 200):
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        root = pow(square, (p + 3) // 8, p)
        for x in (root, root * pow(2, (p - 1) // 4, p) % p):
            if x * x % p == square:
                found.add(times(order, (x, y)))
        for one, other in itertools.product(tuple(found), repeat=2):
            found.add(add(one, other))
        if len(found) == 8:
            return [(y | (x & 1) << 255).to_bytes(32, "little") for x, y in found]
    raise AssertionError("the curve has eight of them")


def test_keys_of_small_order_are_refused() -> None:
    points = points_of_small_order()
    assert len(set(points)) == 8
    for point in points:
        with pytest.raises(ValueError, match="small order"):
            independent_reader.point(point)
    with pytest.raises(ValueError, match="no point"):
        independent_reader.point((2**255 - 18).to_bytes(32, "little"))  # 1, written differently
    key = independent_reader.signing_public(bytes(32))
    assert independent_reader.point(key) == key


def body(**fields: Any) -> list[Any]:
    """The body of a manifest as MessagePack gives it, with some fields as they are not."""
    reference = [b"p" * 32, 0, b"i" * 32]
    usual: dict[str, Any] = {"version": 1, "time": 9, "clock": 8, "source": "chat", "path": b"/chat", "host": "laptop"}
    usual |= {"id_key": b"k" * 32, "epoch": b"e" * 32, "flags": 1, "stack": [[0, 3, 3, [reference]]]}
    usual |= {"packs": [[b"p" * 32, 9]], "databases": 0, "pending": 0, "busy": 0, "set": b"s" * 32, "totals": [0] * 5}
    assert fields.keys() <= usual.keys()
    return list((usual | fields).values())


PARTS = [[b"p" * 32, n, b"i" * 32] for n in range(3)]


@pytest.mark.parametrize(
    "fields",
    [
        *({"version": 2}, {"time": 7}, {"clock": -1}, {"time": 1 << 63}, {"time": True}, {"flags": 4}),
        *({"pending": 1}, {"source": "a" * 256}, {"path": b"a" * 4097}, {"host": b"laptop"}, {"id_key": b"k"}),
        *({"stack": [[4, 1, 1, PARTS]]}, {"stack": [[0, 0, 1, PARTS]]}, {"stack": [[0, 2, 1, PARTS]]}),
        *({"stack": [[0, 4, 4, PARTS]]}, {"stack": [[0, 1, 1, []]]}, {"stack": [[0, 1, 1, PARTS + PARTS[:1]]]}),
        *({"stack": [[0, 3, 3, PARTS], [0, 2, 2, PARTS]]}, {"stack": [[0, 1, 1, PARTS[:1]], [0, 2, 2, PARTS[1:]]]}),
        *({"stack": [[0, 1, 1, [[b"p" * 32, 65535, b"i" * 32]]]]}, {"stack": [[0, 1, 1, [[b"p", 0, b"i" * 32]]]]}),
        *({"packs": [[b"p" * 32, 9]] * 2}, {"packs": [[b"p" * 32, (64 << 20) + 1]]}, {"packs": [[b"p" * 32, 0]]}),
        *({"packs": [[b"p" * 32, 9, 9]]}, {"databases": -1}, {"set": b""}, {"totals": [0] * 4}, {"totals": [0] * 6}),
        {"packs": [[n.to_bytes(32, "big"), 1] for n in range(16385)]},
        {"stack": [[0, 1, 1, [[bytes(32), 0, n.to_bytes(32, "big")]]] for n in range(1025)]},
    ],
    ids=lambda fields: f"{fields}"[:40],
)
def test_bounds_of_manifests(fields: dict[str, Any]) -> None:
    assert independent_reader.parse_body(body(), 3)[1]["complete"]
    with pytest.raises(ValueError):
        independent_reader.parse_body(body(**fields), 3)
    with pytest.raises(ValueError, match="left over"):
        independent_reader.parse_body([*body(), 0], 3)


def test_databases_are_those_of_the_capture() -> None:
    tree = independent_reader.Tree.__new__(independent_reader.Tree)
    section = independent_reader.Section(2, 0, 512, 0, b"d" * 32, [])
    file = independent_reader.File(2, independent_reader.DATABASE, 0, 0, 0, 0, b"", [])
    tree.paths, tree.files, tree.sections = {b"a": 2}, {2: file}, {2: [section]}
    key = blake3(bytes(32), derive_key_context="chatkeep v1 database set").digest()
    snapshot: Any = type("S", (), {"id_key": bytes(32), "databases": 1})
    snapshot.set_digest = blake3((2).to_bytes(8, "big") + b"d" * 32, key=key).digest()
    tree.check_databases(snapshot)
    for changed in (section._replace(digest=b"e" * 32), None):
        tree.sections = {2: [changed]} if changed else {}
        with pytest.raises(ValueError, match="not those of the capture"):
            tree.check_databases(snapshot)


def walked(made: PrunedVault) -> tuple[list[int], list[str]]:
    roots = [bytes(keys.root.view()) for keys in made.keys]
    vault, notes = opened(Objects(made.provider.objects), made.vault.vault_id.hex(), roots)
    return [one.seq for one in independent_reader.snapshots(vault) if one.stream == STREAM.hex()], notes


@pytest.mark.parametrize("other", [(5, (2, 5)), (9, (2, 9)), (7, ())])
def test_of_two_checkpoints_whatever_either_keeps_lives(other: tuple[int, tuple[int, ...]]) -> None:
    made = PrunedVault(make_vault(), 10)
    through, seqs = other
    names = [made.sign(made.checkpoint(through, seqs)), made.sign(made.checkpoint(7, (1, 6)))]
    made.put({str(name): raw for name, raw in names})
    lowest = min(through, 7)
    lives = sorted({*range(lowest + 1, 11), *seqs, 1, 6}, reverse=True)
    found, notes = walked(made)
    assert found == lives
    assert ["two checkpoints 1: a fork" in note for note in notes] == [True]
    made.drop(2, 6)
    found, notes = walked(made)
    assert found == [seq for seq in lives if seq not in (2, 6)]
    missing = [note for note in notes if "missing" in note]
    assert len(missing) == len({2, 6} & set(lives))


def test_a_listed_checkpoint_that_is_missing_is_told_and_an_older_one_keeps_what_it_keeps() -> None:
    made = PrunedVault(make_vault(), 10)
    made.prune(5, 2, 5)
    newest = made.prune(9, 2, 9, sweep=False)
    made.rotate({made.stream.stream_id: made.head(10)}, newest)
    assert walked(made) == ([10, 9, 2], [])
    del made.provider.objects[str(newest)]
    found, notes = walked(made)
    assert found == [10, 9, 8, 7, 6, 5, 2]
    assert sum("the checkpoint that the newest epoch record names is missing" in note for note in notes) == 1
    made.drop(2)
    assert any("-" in note and note.endswith("it is missing") for note in walked(made)[1])


def test_two_epochs_that_fit_are_a_fork_and_neither_counts() -> None:
    made = PrunedVault(make_vault(), 3)
    made.rotate({}, None)
    made.keys.pop()
    made.records.pop()
    made.rotate({}, None)
    made.keys.pop()
    found, notes = walked(made)
    assert found == [3, 2, 1]
    assert [note for note in notes if "two records of epoch 2 fit: a fork" in note]


@pytest.mark.parametrize("kept", [(), (10,)])
def test_what_was_pruned_while_it_was_read_is_no_damage(kept: tuple[int, ...], tmp_path: Path) -> None:
    made = PrunedVault(make_vault(), 10)
    roots = [bytes(keys.root.view()) for keys in made.keys]
    vault, notes = opened(Objects(made.provider.objects), made.vault.vault_id.hex(), roots)
    newest = next(independent_reader.snapshots(vault))
    assert (newest.seq, notes) == (10, [])
    made.prune(10, *kept)
    with pytest.raises(ValueError, match="is missing"):  # these snapshots have no packs at all
        independent_reader.restore(vault, newest, str(tmp_path / "out"))
    assert ["was pruned while it was read" in note for note in notes] == [False] + [True] * (not kept)
