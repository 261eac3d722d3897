"""Imports go one way. Each room says here what it may use; everything else is a failure."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pacs_core"

# Room: what it may import of ours, besides itself. From the ground up.
GROUND = {"errors", "config", "logs", "lifecycle"}
MAY_USE: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "logs": {"errors", "config"},
    "lifecycle": {"errors", "config", "logs"},
    "secure": {"errors", "config"},
    "_ext": {"errors"},
    "dicom": {*GROUND, "_ext"},
    "index": {*GROUND, "dicom", "_ext"},
    "store": {*GROUND, "dicom", "_ext"},
    "pixels": {*GROUND, "dicom", "_ext"},
    "pool": {*GROUND},  # knows nothing of DICOM
    "workflow": {*GROUND, "dicom", "index", "pool", "_ext"},
    "archive": {*GROUND, "dicom", "index", "store", "pixels", "pool", "workflow"},
    "dimse": {*GROUND, "dicom", "archive", "workflow", "_ext"},
    "client": {*GROUND, "dicom", "archive", "workflow", "_ext"},
    "server": {*GROUND, "dicom", "archive", "workflow", "pool", "dimse", "client", "secure"},
    "cli": {*GROUND, "dicom", "archive", "workflow", "pool", "dimse", "client", "server", "secure"},
    "__main__": {"cli"},
}

# Edges speak the wire natively and go through the engine for everything else.
NATIVE_OF_EDGES = {"associate", "buffer", "command", "link", "pdu"}

FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "core", "misc"}

MODULES = sorted(PACKAGE.rglob("*.py"))
NATIVE = sorted((ROOT / "_ext").glob("*.p[yx][xd]"))


def name_of(path: Path) -> str:
    """The dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """The room of a dotted name: the part after the package; empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


KNOWN = {name_of(path) for path in MODULES} | {f"pacs_core._ext.{path.stem}" for path in NATIVE}


def imports(path: Path, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Our modules that one imports, wherever in it, and at which line."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
            found = [f"{base}.{a.name}" if f"{base}.{a.name}" in KNOWN else base for a in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == "pacs_core":
                yield name, node.lineno


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def test_every_room_is_known_and_packaged() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert rooms | files <= set(MAY_USE)
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    assert set(packages) == {"pacs_core", *(f"pacs_core.{room}" for room in rooms)}


def test_the_rooms_have_no_cycle() -> None:
    order: list[str] = []
    left = dict(MAY_USE)
    while left:
        free = [room for room, uses in left.items() if uses <= set(order)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        for room in free:
            del left[room]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    room = room_of(name_of(path))
    wrong = []
    for name, line in imports(path, parsed(path)):
        used = room_of(name)
        if room == "" or used in ("", room):
            continue  # the package shows the public names; __version__ is anybody's
        allowed = used in MAY_USE[room]
        if allowed and used == "_ext" and room in ("dimse", "client"):
            allowed = name.split(".")[2:3] != [] and name.split(".")[2] in NATIVE_OF_EDGES
        if not allowed:
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", NATIVE, ids=lambda path: path.name)
def test_native_modules_use_native_modules_only(path: Path) -> None:
    wrong = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        for name in re.findall(r"^\s*(?:from|c?import)\s+(pacs_core[\w.]*)", line):
            if room_of(name) not in ("_ext", *MAY_USE["_ext"]):
                wrong.append(f"{path.relative_to(ROOT)}:{number} imports {name}")
        assert not re.match(r"\s*include\s+[\"']|.*cimport\s+\*", line), f"{path.name}:{number}: {line}"
    assert not wrong, "\n".join(wrong)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        tree = parsed(path)
        # Only what runs at import: not what functions import, nor what only a type checker sees.
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        graph[name_of(path)] = {name for name, _ in imports(path, tree)} - {name_of(path)}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " > ".join([*above[above.index(name) :], name])
        if name not in done:
            for used in sorted(graph.get(name, ())):
                visit(used, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", [*MODULES, *NATIVE], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_named_for_what_is_in_it(path: Path) -> None:
    assert path.stem not in FORBIDDEN_NAMES
    assert not FORBIDDEN_NAMES & set(path.parent.relative_to(ROOT).parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_is_documented(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree), "the module has no docstring"
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


def test_every_native_module_is_listed_and_has_its_stub() -> None:
    listed = re.search(r"^MODULES = \(([^)]*)\)", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert listed is not None
    names = set(re.findall(r"\"(\w+)\"", listed[1]))
    assert names == {path.stem for path in NATIVE if path.suffix == ".pyx"}
    assert names == {path.stem for path in (PACKAGE / "_ext").glob("*.pyi")}
