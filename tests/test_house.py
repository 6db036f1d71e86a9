"""The plan of the package in CONTRIBUTING.md is that of the code; `lint-imports` sees to the rest of it."""

import ast
import functools
import graphlib
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "kerasbn"
MODULES = sorted(PACKAGE.rglob("*.py"))
_ASSIGNMENTS = {"assign", "assign_add", "assign_sub", "set_weights", "load_own_variables"}
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@functools.cache
def _floors():
    """The rooms of each floor, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = [contract for contract in contracts if contract.get("containers") == ["kerasbn"]]
    return [floor.split(" | ") for floor in floors["layers"]]


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _tree(path):
    return ast.parse(path.read_text())


def _purpose(room):
    """The first sentence of a room's docstring."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(_tree(path)).partition("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[a-z`])\. ", text)[0].rstrip(".")


def test_contributing_shows_the_rooms():
    rows = [f"| {number} | `{room}` | {_purpose(room)} |" for number, floor in _numbered() for room in floor]
    table = "\n".join(["| floor | room | what is there |", "| ---: | --- | --- |", *rows])
    assert table in CONTRIBUTING, f"CONTRIBUTING.md should have:\n\n{table}\n"


def _numbered():
    return zip(range(len(_floors()), 0, -1), _floors(), strict=True)


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_no_low_room_names_a_high_one(path):
    """Not in strings either, such as those of lazy imports; docstrings, which are for users, aside."""
    number_of = {room: number for number, floor in _numbered() for room in floor}
    _, _, room = _module(path).partition(".")
    own = number_of.get(room.partition(".")[0], len(number_of) + 1)
    docstrings = {id(node.value) for node in ast.walk(_tree(path)) if isinstance(node, ast.Expr)}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            for named in re.findall(r"\bkerasbn\.(\w+)", node.value):
                assert number_of.get(named, 0) <= own, f"line {node.lineno}: {node.value!r}"


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_values_are_copied_in_one_way(path):
    """`_keras.set_value`; but for the statistics of a batch, which are nobody else's."""
    if _module(path).startswith("kerasbn._keras.") or _module(path) == "kerasbn.serializable.batch_normalization":
        return
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Attribute) and node.attr in _ASSIGNMENTS:
            pytest.fail(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "keras.Variable":
            assert isinstance(node.args[0], ast.Constant), f"line {node.lineno}: {ast.unparse(node)}"


def test_no_circle():
    """No modules import one another in a circle, inside of functions either."""
    names = {_module(path) for path in MODULES}
    imports = {}
    for path in MODULES:
        found = set()
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & names) or {node.module}
        imports[_module(path)] = found & names
    assert imports["kerasbn.planner"]
    tuple(graphlib.TopologicalSorter(imports).static_order())
