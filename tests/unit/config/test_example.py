"""The example and the schema say what the loader does, because all three come from the model."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatkeep.config.example import example
from chatkeep.config.key import unwrap
from chatkeep.config.limits import Limit, LimitHours
from chatkeep.config.loader import parse
from chatkeep.config.model import Config, ProviderConfig, Retention, Source, VaultConfig, shapes
from chatkeep.config.problems import ConfigInvalid
from chatkeep.config.running import (
    DrillJob,
    JobsConfig,
    OutboxConfig,
    PruneJob,
    SessionConfig,
    TellConfig,
    VerifyJob,
    WatchConfig,
)
from chatkeep.config.schema import schema
from chatkeep.config.storages import BUILT_IN_OPTIONS
from chatkeep.providers.registry import BUILT_IN, provider_type

FILE = Path("example.yaml")
RUNNING: list[type] = [WatchConfig, SessionConfig, OutboxConfig, JobsConfig, VerifyJob, DrillJob, PruneJob, TellConfig]
MODELS: list[type] = [
    Config,
    Source,
    ProviderConfig,
    VaultConfig,
    Retention,
    Limit,
    LimitHours,
    *RUNNING,
    *BUILT_IN_OPTIONS.values(),
]
KIND_OF = {options: word for word, options in BUILT_IN_OPTIONS.items()}


def switched_on(text: str) -> str:
    """An example with one "#" less before every key; "# text" is documentation."""
    return re.sub(r"(?m)^( *)#(?! [^ ])", r"\1", text)


def full(kind: str = "") -> str:
    """The example with every optional key switched on, also those that are samples inside an optional block."""
    text = example(kind)
    while (more := switched_on(text)) != text:
        text = more
    return text


def test_the_example_loads() -> None:
    config = parse(example(), FILE)
    assert [source.name for source in config.sources] == ["ExampleChat"]


def test_the_example_with_every_key_loads_and_shows_the_defaults() -> None:
    plain, config = parse(example(), FILE), parse(full(), FILE)
    assert config.sources[0].exclude
    assert config.vault == plain.vault
    assert config.retention == plain.retention
    assert config.sources[0].compression == plain.sources[0].compression
    assert [dataclasses.replace(one, limit=Limit()) for one in config.providers] == list(plain.providers)
    assert config.providers[0].limit.hours
    for key in ("watch", "session", "outbox", "jobs"):
        assert getattr(config, key) == getattr(plain, key), key


def test_a_block_that_is_switched_on_changes_nothing() -> None:
    """Samples of programs to run and of files to write stay off when only the "#" of their block is removed."""
    plain, blocks = parse(example(), FILE), parse(switched_on(example()), FILE)
    for key in ("retention", "watch", "session", "outbox", "jobs", "tell"):
        assert getattr(blocks, key) == getattr(plain, key), key
    assert parse(full(), FILE).tell.command == ("/usr/local/bin/tell-me",)


def test_every_model_is_looked_at_here() -> None:
    found, rest = set[type](), list[Any]([Config, *BUILT_IN_OPTIONS.values()])
    while rest:
        model = rest.pop()
        found.add(model)
        kinds = [shape.type for shape in shapes(model)]
        inner = [unwrap(kind.__args__[0])[0] for kind in kinds if getattr(kind, "__origin__", None) is tuple]
        rest += [kind for kind in (*kinds, *inner) if dataclasses.is_dataclass(kind)]
    assert found == set(MODELS)


def test_the_page_of_the_configuration_is_the_example() -> None:
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert f"```yaml\n{example()}```\n" in page, "put the output of chatkeep config example there"


@pytest.mark.parametrize("model", MODELS)
def test_every_key_and_its_documentation_is_in_the_example(model: type) -> None:
    kind = KIND_OF.get(model, "")
    keys = full(kind)
    said = " ".join(line.lstrip("# ").strip() for line in example(kind).splitlines() if "#" in line)
    for shape in shapes(model):
        assert re.search(rf"(?m)^ *(- )?{shape.name}:", keys), shape.name
        assert shape.key.doc in said


@pytest.mark.parametrize(
    ("kind", "name"), [("", "disk"), ("folder", "disk"), ("s3", "s3"), ("gdrive", "drive"), ("webdav", "webdav")]
)
def test_a_provider_is_called_after_its_type(kind: str, name: str) -> None:
    (found,) = parse(example(kind), FILE).providers
    assert (found.name, found.type) == (name, kind or "folder")


def test_the_types_of_the_configuration_are_those_that_can_be_opened() -> None:
    assert set(BUILT_IN_OPTIONS) == set(BUILT_IN)
    for word, options in BUILT_IN_OPTIONS.items():
        assert provider_type(word).options is options


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(schema())) == schema()
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("model", MODELS)
def test_every_documentation_is_in_the_schema(model: type) -> None:
    text = json.dumps(schema(), ensure_ascii=False)
    for shape in shapes(model):
        assert json.dumps(shape.key.doc, ensure_ascii=False) in text


LIMITED = "sources: [/a]\nproviders: [{{name: d, type: folder, path: /m, {}}}]\n"
GOOD = "sources: [/a]\nproviders: [{name: d, type: folder, path: /m}]\n"


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (GOOD, True),
        (GOOD + "vault: {name: x}", True),
        (GOOD + "vault: {name: ''}", False),
        (GOOD + "vault: {name: -x}", False),
        (GOOD + "vault: {nmae: x}", False),
        (GOOD + "vault: x", False),
        (GOOD + "more: x", False),
        (GOOD + "retention: {hourly: 3, yearly: all, grace: 1 week}", True),
        (GOOD + "retention: {hourly: -1}", False),
        (GOOD + "retention: {hourly: 1.5}", False),
        (GOOD + "retention: {hourly: true}", False),
        (GOOD + "retention: {hourly: 1000000}", False),
        (GOOD + "retention: {hourly: every}", False),
        (GOOD + "retention: {grace: 7}", False),
        (GOOD + "retention: {grace: 7 fortnights}", False),
        (GOOD + "retention: {grace: 0 days}", True),
        (GOOD + "watch: {quiet: 0s, max_delay: 5 seconds, min_interval: 5s, poll_every: 5min}", True),
        (GOOD + "watch: {quiet: 5m}", False),
        (GOOD + "watch: {quiet: 5}", False),
        (GOOD + "watch: {max_delay: 0s}", False),
        (GOOD + "watch: {compare_every: 59s}", False),
        (GOOD + "watch: {compare_every: 60s, poll_every: 60s, min_interval: 60s}", True),
        (GOOD + "watch: {compare_every: never}", False),
        (GOOD + "session: {lock_on: []}", True),
        (GOOD + "session: {lock_on: [idle, screen-lock, suspend, logout], require_unlock: false}", True),
        (GOOD + "session: {lock_on: [lunch]}", False),
        (GOOD + "session: {lock_on: idle}", False),
        (GOOD + "session: {lock_after: 59 seconds}", False),
        (GOOD + "session: {lock_after: 61 seconds}", True),
        (GOOD + "session: {lock_after: never}", False),
        (GOOD + "outbox: {limit: 500 MB}", True),
        (GOOD + "outbox: {limit: 500}", False),
        (GOOD + "jobs: {prune: {every: 1 week}, drill: {every: never}}", True),
        (GOOD + "jobs: {prune: {every: 30 seconds}}", False),
        (GOOD + "jobs: {verify: {sample: 1%}}", True),
        (GOOD + "jobs: {verify: {sample: 1}}", False),
        (GOOD + "jobs: {drill: never}", False),
        (GOOD + "tell: {webhook_file: ~/x, command: [tell, --now], metrics_file: /m, held_after: never}", True),
        (GOOD + "tell: {webhook_file: 'https://example.org/x'}", False),
        (GOOD + "tell: {command: tell}", False),
        (GOOD + "tell: {desktop: 'off'}", False),
        (GOOD + "state_dir: relative", False),
        (LIMITED.format("connections: 8, limit: {upload: 500 KB/s, download: unlimited}"), True),
        (LIMITED.format("connections: 0"), False),
        (LIMITED.format("connections: 65"), False),
        (LIMITED.format("connections: many"), False),
        (LIMITED.format("limit: {upload: 500}"), False),
        (LIMITED.format("limit: {upload: 10 KB/s}"), True),
        (LIMITED.format("limit: {upload: 9 KB/s}"), False),
        (LIMITED.format("limit: {upload: 500 kbit/s}"), False),
        (LIMITED.format("limit: 500 KB/s"), False),
        (LIMITED.format("limit: {hours: [{from: '22:30', to: '06:00', days: [mon, sun], upload: 2MB/s}]}"), True),
        (LIMITED.format("limit: {hours: [{from: '22:30', to: '24:00'}]}"), False),
        (LIMITED.format("limit: {hours: [{to: '06:00'}]}"), False),
        (LIMITED.format("limit: {hours: [{from: '22:30', to: '06:00', days: [monday]}]}"), False),
        (LIMITED.format("limit: {hours: []}"), False),
        ("sources: [/a]\n", False),
        ("sources: []\nproviders: [{name: d, type: folder, path: /m}]", False),
        ("sources: [a]\nproviders: [{name: d, type: folder, path: /m}]", False),
        ("sources: [{name: x}]\nproviders: [{name: d, type: folder, path: /m}]", False),
        ("sources: [{path: /a, exclude: [x, 'y/**']}]\nproviders: [{name: d, type: folder, path: /m}]", True),
        ("sources: [{path: /a, exclude: [../x]}]\nproviders: [{name: d, type: folder, path: /m}]", False),
        ("sources: [{path: /a, exclude: x}]\nproviders: [{name: d, type: folder, path: /m}]", False),
        ("sources: [{path: /a, compression: 'off'}]\nproviders: [{name: d, type: folder, path: /m}]", True),
        ("sources: [{path: /a, compression: max}]\nproviders: [{name: d, type: folder, path: /m}]", False),
        ("sources: [/a]\nproviders: [{name: d, type: tape, path: /m}]", False),
        ("sources: [/a]\nproviders: [{name: d, type: folder}]", False),
        ("sources: [/a]\nproviders: [{name: d, type: folder, path: /m, required: 1}]", False),
        ("sources: [/a]\nproviders: [{name: d, type: folder, path: /m, required: true}]", True),
    ],
)
def test_schema_and_loader_agree(text: str, *, accepted: bool) -> None:
    try:
        parse(text, FILE)
        loaded = True
    except ConfigInvalid:
        loaded = False
    assert loaded is accepted
    assert valid(yaml.safe_load(text), schema()) is accepted


def test_the_examples_obey_the_schema() -> None:
    assert valid(yaml.safe_load(example()), schema())
    assert valid(yaml.safe_load(full()), schema())


TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
TYPES["number"] = (int, float)
CHECKS: dict[str, Any] = {
    "type": lambda value, rule: any(
        isinstance(value, TYPES[word]) and (word not in {"integer", "number"} or not isinstance(value, bool))
        for word in ([rule] if isinstance(rule, str) else rule)
    ),
    "minimum": lambda value, rule: value >= rule,
    "maximum": lambda value, rule: value <= rule,
    "enum": lambda value, rule: value in rule,
    "const": lambda value, rule: value == rule,
    "pattern": lambda value, rule: re.search(rule, value) is not None,
    "minLength": lambda value, rule: len(value) >= rule,
    "minItems": lambda value, rule: len(value) >= rule,
    "required": lambda value, rule: set(rule) <= set(value),
    "properties": lambda value, rule: all(valid(value[k], inner) for k, inner in rule.items() if k in value),
    "items": lambda value, rule: all(valid(item, rule) for item in value),
    "anyOf": lambda value, rule: any(valid(value, option) for option in rule),
    "oneOf": lambda value, rule: sum(valid(value, option) for option in rule) == 1,
}


def valid(value: Any, rules: dict[str, Any]) -> bool:
    """The part of JSON Schema that is used here; an unknown keyword fails the test instead of passing everything."""
    if "type" in rules and not CHECKS["type"](value, rules["type"]):
        return False
    for word, rule in rules.items():
        if word == "additionalProperties":
            rest = set(value) - set(rules.get("properties", ()))
            if rest and (rule is False or not all(valid(value[name], rule) for name in rest)):
                return False
        elif word not in {"$schema", "title", "description", "default"} and not CHECKS[word](value, rule):
            return False
    return True
