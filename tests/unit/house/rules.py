"""The rules of the house, each a function from a source tree to what breaks it. Nothing is imported, only parsed."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

PACKAGES = ("config", "providers", "daemon", "systemd")
MAX_FILE, MAX_FUNCTION, MAX_METHODS = 500, 60, 20

# Arrows point downwards only; on one level nobody imports a neighbour.
LEVELS = (
    ("cli",),
    ("control",),
    ("service",),
    ("backup", "restore", "prune", "verify", "sync"),
    ("capture", "vault"),
    ("keys", "state", "providers", "retention"),
    ("config", "systemd"),
)
RANK = {area: rank for rank, level in enumerate(LEVELS) for area in level}
# Sync moves sealed bytes: what it cannot import it cannot leak.
FORBIDDEN = {"sync": {"vault", "keys", "capture"}}
BANNED = {
    *("util", "utils", "helper", "helpers", "common", "manager", "managers", "handler", "handlers"),
    *("core", "data", "info", "misc", "process"),
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Module:
    """One .py file: its path from the top, its imported name if it belongs to the product, its syntax tree."""

    path: str
    name: str
    lines: int
    tree: ast.Module

    @property
    def area(self) -> str:
        return area_of(self.name)

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


class House:
    """A source tree."""

    def __init__(self, top: Path) -> None:
        self.top = top

    @cached_property
    def modules(self) -> list[Module]:
        """Every .py file that is not generated or installed."""
        return [self._read(path) for path in sorted(self.top.rglob("*.py")) if not self._foreign(path)]

    @cached_property
    def product(self) -> list[Module]:
        """The modules of the three packages."""
        return [module for module in self.modules if module.name]

    def _foreign(self, path: Path) -> bool:
        parts = path.relative_to(self.top).parts
        return any(part.startswith(".") or part in {"build", "dist", "out", "__pycache__"} for part in parts)

    def _read(self, path: Path) -> Module:
        relative = path.relative_to(self.top)
        text = path.read_text(encoding="utf-8")
        parts = relative.with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        name = ".".join(("chatkeep", *parts)) if relative.parts[0] in PACKAGES else ""
        return Module(str(relative), name, len(text.splitlines()), ast.parse(text, str(path)))


_MODULE = re.compile(rf"chatkeep\.({'|'.join(PACKAGES)})(\.\w+)*")
Rule = Callable[[House], Iterator[str]]


def area_of(name: str) -> str:
    """Which part of the house a module is: chatkeep.daemon.backup_tree and chatkeep.daemon.backup.x are `backup`."""
    parts = name.split(".")
    if len(parts) > 2 and parts[1] == "daemon":
        return parts[2].split("_")[0]
    return parts[1] if len(parts) > 1 and parts[1] != "daemon" else ""


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, also inside functions, relatively, or as a name in text."""
    package = module.name if module.path.endswith("__init__.py") else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                near = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*near, base] if base else near)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
            yield node.lineno, node.value  # a table of modules to import later


def arrows(house: House) -> Iterator[str]:
    """Imports among the areas point downwards only."""
    for module in house.product:
        if not module.area:
            continue
        if module.area not in RANK:
            yield f"{module.path}: {module.area} has no level; give it one in the design and here"
            continue
        for line, name in imported(module):
            target = area_of(name) if name.startswith("chatkeep.") else ""
            if not target or target == module.area:
                continue
            if RANK.get(target, -1) <= RANK[module.area] or target in FORBIDDEN.get(module.area, ()):
                yield f"{module.path}:{line}: {module.area} imports {target}"


def bare_imports(house: House) -> Iterator[str]:
    """The folders are imported as chatkeep.<folder>; under a bare name they are a second copy or another project."""
    for module in house.modules:
        for line, name in imported(module):
            if name.split(".")[0] in PACKAGES:
                yield f"{module.path}:{line}: bare import of {name}"


def no_sqlite_in_capture(house: House) -> Iterator[str]:
    """SQLite never opens a watched file: its locks are per process, and closing one handle would drop the pin."""
    for module in house.product:
        for line, name in imported(module):
            if module.area == "capture" and name.split(".")[0] in {"sqlite3", "_sqlite3", "apsw", "pysqlite3"}:
                yield f"{module.path}:{line}: {name} in capture"


def sizes(house: House) -> Iterator[str]:
    """Files, functions and classes stay small enough to be read."""
    for module in house.modules:
        if module.lines > MAX_FILE:
            yield f"{module.path}: {module.lines} lines"
        for node in ast.walk(module.tree):
            if isinstance(node, Definition):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    yield f"{module.path}:{node.lineno}: {node.name} has {length} lines"
        for cls in module.classes():
            # a class of tests is a list: nobody calls its methods
            count = len({name for name in _methods(cls) if not name.startswith("test_")})
            if count > MAX_METHODS:
                yield f"{module.path}:{cls.lineno}: {cls.name} has {count} public methods"


def names(house: House) -> Iterator[str]:
    """Modules and classes are called by what they are."""
    for module in house.modules:
        for part in Path(module.path).with_suffix("").parts:
            if BANNED & set(part.lower().split("_")):
                yield f"{module.path}: the name says nothing"
        for cls in module.classes():
            if BANNED & {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", cls.name)}:
                yield f"{module.path}:{cls.lineno}: the name {cls.name} says nothing"


def packages(house: House) -> Iterator[str]:
    """What pyproject.toml does not list is not installed; what it lists must be there."""
    listed = set(tomllib.loads((house.top / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {Path(module.path).parent for module in house.product}
    there = {".".join(("chatkeep", *folder.parts)) for folder in folders}
    for folder in sorted(folders):
        if not (house.top / folder / "__init__.py").exists():
            yield f"{folder}: no __init__.py"
    yield from (f"pyproject.toml: {name} is not listed" for name in sorted(there - listed))
    yield from (f"pyproject.toml: {name} does not exist" for name in sorted(listed - there))


def docstrings(house: House) -> Iterator[str]:
    """Every public name says what it promises, itself or in the contract it follows."""
    contracts = _Contracts(house)
    for module in house.product:
        if not ast.get_docstring(module.tree):
            yield f"{module.path}: no docstring"
        for owner, node in _public(module.tree):
            told = owner is not None and contracts.tell(node.name, owner)
            if not ast.get_docstring(node) and not told:
                yield f"{module.path}:{node.lineno}: {node.name} has no docstring"


class _Contracts:
    """Which methods are documented elsewhere: in a base class, or in a protocol that a class fulfils by its shape."""

    def __init__(self, house: House) -> None:
        self.classes = {cls.name: cls for module in house.product for cls in module.classes()}
        self.protocols = [cls for cls in self.classes.values() if "Protocol" in _bases(cls)]

    def tell(self, method: str, cls: ast.ClassDef) -> bool:
        fulfilled = [protocol for protocol in self.protocols if _methods(protocol) <= _methods(cls) | _fields(cls)]
        ancestors = [self.classes[name] for name in _bases(cls) if name in self.classes and name != cls.name]
        return any(
            (ast.get_docstring(node) and node.name == method)
            for contract in (*fulfilled, *ancestors)
            for node in contract.body
            if isinstance(node, Definition)
        ) or any(self.tell(method, ancestor) for ancestor in ancestors)


def _bases(cls: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).split("[")[0].split(".")[-1] for base in cls.bases}


def _methods(cls: ast.ClassDef) -> set[str]:
    return {node.name for node in cls.body if isinstance(node, Definition) and not node.name.startswith("_")}


def _public(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, Definition | ast.ClassDef]]:
    for node in tree.body:
        if isinstance(node, Definition | ast.ClassDef) and not node.name.startswith("_"):
            yield None, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Definition) and not inner.name.startswith("_") and not _follows(inner):
                        yield node, inner


def _follows(node: Definition) -> bool:
    """A setter or an overload: the same name is documented beside it."""
    decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(decorators & {"setter", "deleter", "overload"})


def _fields(cls: ast.ClassDef) -> set[str]:
    return {
        node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def error_tree(house: House) -> Iterator[str]:
    """The drawing at the top of config/errors.py names every branch of the error tree, and only those."""
    errors = next(module for module in house.product if module.path == "config/errors.py")
    drawn = set(re.findall(r"(?m)^ {6}(\w+) ", ast.get_docstring(errors.tree) or ""))
    found = {cls.name for module in house.product for cls in module.classes() if "ChatkeepError" in _bases(cls)}
    yield from (f"config/errors.py: {name} is not drawn" for name in sorted(found - drawn))
    yield from (f"config/errors.py: {name} does not exist" for name in sorted(drawn - found))


RULES: tuple[Rule, ...] = (
    *(arrows, bare_imports, no_sqlite_in_capture, sizes, names, packages, docstrings, error_tree),
)
