"""Random histories of files and databases against a dict model, and every way of folding them."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from chatkeep.daemon.vault.errors import Malformed, UnsupportedVersion
from chatkeep.daemon.vault.fold import merge
from chatkeep.daemon.vault.layer_build import LayerBuilder
from chatkeep.daemon.vault.layers import Layer, Section, decode_part, join
from chatkeep.daemon.vault.resolve import PageWalk, resolve_tree
from tests.support.stack_model import DATABASES, RESIZES, SMALL_PART, STEPS, Model, Step, image, own_pack, seen


def _model(steps: list[Step]) -> Model:
    model = Model()
    for step in steps:
        model.step(step)
    return model


def _holds(model: Model) -> bool:
    tree = resolve_tree(model.layers)
    if tree.paths != model.paths or tree.faults:
        return False
    for file_id in tree.paths.values():
        if file_id in DATABASES:
            expected = model.pages[file_id]
            if None in expected.values():
                expected = dict.fromkeys(expected)
            if image(tree.sections[file_id]) != expected:
                return False
        elif [(extent.length, extent.reference and extent.reference.id) for extent in tree.extents(file_id)] != [
            (extent.length, extent.reference and extent.reference.id) for extent in model.extents[file_id]
        ]:
            return False
    return True


@hypothesis.given(STEPS)
def test_a_stack_resolves_to_what_was_written(steps: list[Step]) -> None:
    assert _holds(_model(steps))


def test_without_the_running_minimum_the_model_finds_old_pages_that_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(walk: PageWalk, section: Section) -> None:
        """Takes the section without lowering the limit."""

    monkeypatch.setattr(PageWalk, "enter", forget)
    settings = hypothesis.settings(max_examples=2000, phases=[hypothesis.Phase.generate])  # raises when there is none
    hypothesis.find(RESIZES, lambda steps: not _holds(_model(steps)), settings=settings)


@hypothesis.given(STEPS, st.data())
def test_folding_any_adjacent_layers_changes_nothing(steps: list[Step], data: st.DataObject) -> None:
    layers = _model(steps).layers
    before = seen(resolve_tree(layers))
    for number in range(3):
        stop = data.draw(st.integers(1, len(layers)))
        start = data.draw(st.integers(0, stop - 1))
        folded = merge(layers[start:stop], oldest=stop == len(layers))
        builder = LayerBuilder()
        builder.add_layer(folded)
        stored = join([decode_part(part, own_pack(1000 + number)) for part in builder.parts(SMALL_PART)])
        layers = [*layers[:start], stored, *layers[stop:]]
        assert seen(resolve_tree(layers)) == before


@hypothesis.given(STEPS)
def test_folding_everything_leaves_nothing_that_is_not_named(steps: list[Step]) -> None:
    model = _model(steps)
    folded = merge(model.layers, oldest=True)
    named = set(model.paths.values())
    assert {entry.path: entry.file_id for entry in folded.entries} == model.paths
    assert {record.file_id for record in folded.files} == named
    assert {content.file_id for content in folded.contents} <= named
    used = [run.reference.id for section in folded.sections for run in section.runs]
    needed = {place[0] for pages in model.pages.values() for place in pages.values() if place is not None}
    assert set(used) == needed


@hypothesis.given(STEPS, st.integers(SMALL_PART, 5000))
def test_decoding_and_encoding_is_identity(steps: list[Step], limit: int) -> None:
    for number, layer in enumerate(_model(steps).layers):
        builder = LayerBuilder()
        builder.add_layer(layer)
        parts = builder.parts(limit)
        assert all(len(part) <= limit for part in parts)
        decoded = join([decode_part(part, own_pack(number)) for part in parts])
        assert (decoded.entries, decoded.files) == (layer.entries, layer.files)
        assert seen(resolve_tree([decoded])) == seen(resolve_tree([layer]))


@hypothesis.given(STEPS, st.data())
def test_damaged_parts_are_refused_with_a_typed_error_or_are_valid(steps: list[Step], data: st.DataObject) -> None:
    builder = LayerBuilder()
    builder.add_layer(_model(steps).layers[0])
    parts = builder.parts(SMALL_PART)
    part = bytearray(data.draw(st.sampled_from(parts)) if parts else b"")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(part) - 1)))
        what = data.draw(st.sampled_from(["byte", "cut", "insert", "double"]))
        if what == "byte" and part:
            part[place] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del part[place : place + data.draw(st.integers(1, 30))]
        elif what == "insert":
            part[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            part[place:place] = part[place : place + 40]
    try:
        layer = decode_part(bytes(part), own_pack(0))
    except (Malformed, UnsupportedVersion):
        return
    assert isinstance(layer, Layer)
    for sections in resolve_tree([layer]).sections.values():
        if sections[0].page_count < 10_000:
            image(sections)
