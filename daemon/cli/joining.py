"""Joins the parts of the reader that needs no Chatkeep into one program, always the same."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files

PACKAGE = "chatkeep.daemon.cli.standalone"
PARTS = (
    *("strict", "keys", "storage", "vault", "passkeys"),
    *("checkpoints", "snapshots", "packs", "layers", "restore", "command"),
)
LACKING = """\
except ImportError as lacking:
    sys.exit(f'! {lacking}: pip install "cryptography>=50" blake3 "zstandard>=0.23"')
"""


def joined() -> str:
    """The program, from the parts that are installed."""
    return join({part: files(PACKAGE).joinpath(f"{part}.py").read_text("utf-8") for part in PARTS})


def join(parts: Mapping[str, str]) -> str:
    """One module of several: their imports at its top, but for those of one another, then the parts in their order.

    The last part's docstring becomes the whole's, the others' stand as comments. Raises ValueError where a name would
    mean two things, and for an import that is renamed or not at the top of its part.
    """
    imports: dict[str, set[str]] = {}  # module to the names from it; "" for the module itself
    owners: dict[str, str] = {}
    body, title = "", ""
    for part, text in parts.items():
        tree = ast.parse(text)
        title = ast.get_docstring(tree, clean=False) or ""
        end = 1 + next(i for i, node in enumerate(tree.body[1:]) if not isinstance(node, ast.Import | ast.ImportFrom))
        for name, module in [*_imported(tree, part, end), *((name, part) for name in _defined(tree.body[end:]))]:
            if owners.setdefault(name or module.split(".")[0], module) != module and name:
                raise ValueError(f"{name} is of {owners[name]} and of {part}")
            if module != part:
                imports.setdefault(module, set()).add(name)
        told = "" if part == [*parts][-1] else "".join(f"\n# {line}".rstrip() for line in title.strip().splitlines())
        body += f"\n\n# --- {part} ---{told}\n"
        body += "\n".join(text.splitlines()[tree.body[end - 1].end_lineno :]).rstrip() + "\n"
    return f'"""{title}"""\n\nfrom __future__ import annotations\n{"".join(_written(imports))}{body}'


def _imported(tree: ast.Module, part: str, end: int) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if node not in tree.body[1:end] or any(alias.asname for alias in node.names):
                raise ValueError(f"{part}, line {node.lineno}: an import that is renamed or not at the top")
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if not module.startswith((PACKAGE, "__future__")):
                yield from ((alias.name, module) if module else ("", alias.name) for alias in node.names)


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def _written(imports: Mapping[str, set[str]]) -> Iterator[str]:
    for own, indent in ((True, ""), (False, "    ")):  # the standard library; what a stranger has to install
        yield "\n" if own else "\ntry:\n"
        group = [it for it in sorted(imports) if (it.split(".")[0] in sys.stdlib_module_names) == own]
        yield from (f"{indent}import {module}\n" for module in group if "" in imports[module])
        found = ((module, ", ".join(sorted(imports[module] - {""}))) for module in group)
        yield from (f"{indent}from {module} import {names}\n" for module, names in found if names)
    yield LACKING
