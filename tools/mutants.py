"""Mutation testing: change the code in one place at a time, and see whether the tests notice.

    python tools/mutants.py folding --sample 50

A mutant that survives its tests is code that could be wrong unnoticed, or a change that makes no difference. The
packages are imported once; each mutant is run in a fork of that process, which TensorFlow survives as long as it has
computed nothing. So nothing is written to the source.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

import click

ROOT = Path(__file__).parents[1]


class Part(NamedTuple):
    """Code, and the tests that are to notice what changes in it, the quickest first."""

    code: str
    tests: str


PARTS = {
    "folding": Part(
        "kerasbn/passes/folding kerasbn/passes/fold_normalization.py",
        "passes/folding passes/test_fold_wrapped.py passes/test_fold_normalization.py",
    ),
    "weights": Part("kerasbn/passes/folding/weights.py kerasbn/catalog/linear.py", "passes/test_folding_table.py"),
    "passes": Part("kerasbn/passes", "passes test_positions.py test_inputs.py test_wrappers.py test_rewrite.py"),
    "graph": Part("kerasbn/graph", "graph test_nested.py test_wrappers.py test_positions.py test_rewrite.py"),
    "layer": Part(
        "kerasbn/serializable/batch_normalization.py kerasbn/serializable/_kernels",
        "serializable/test_batch_normalization.py serializable/test_synchronized.py",
    ),
}

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_LEFT_ALONE = {"annotation", "returns", "decorator_list"}
_SIMPLE = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)


class Mutant(NamedTuple):
    """One change: what stands in the place of a node, in a field of its parent."""

    path: Path
    parent: ast.AST
    field: str
    index: int | None
    old: Any
    new: ast.AST

    def __str__(self) -> str:
        old, new = (" ".join(ast.unparse(each).split()) for each in (self.old, self.new))
        return f"{self.path.relative_to(ROOT)}:{self.old.lineno}: {old}  ->  {new}"

    def apply(self) -> None:
        """Make the change in the tree."""
        if self.index is None:
            setattr(self.parent, self.field, self.new)
        else:
            getattr(self.parent, self.field)[self.index] = self.new


def mutants(path: Path, tree: ast.AST) -> Iterator[Mutant]:
    """All changes of a module."""
    for field, value in ast.iter_fields(tree):
        if field in _LEFT_ALONE:
            continue
        for index, node in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(node, ast.AST) and not _only_checks(node):
                for new in _instead_of(node, is_test=field in ("test", "ifs")):
                    yield Mutant(path, tree, field, index, node, ast.copy_location(new, node))
                yield from mutants(path, node)


def _only_checks(node: ast.AST) -> bool:
    """Whether a node is a message, or makes no difference unless something is wrong elsewhere."""
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.keyword("strict") | ast.Raise(ast.Name("NotImplementedError")):
            return True
    return False


def _instead_of(node: ast.AST, *, is_test: bool) -> Iterator[ast.AST]:
    """What to put in the place of a node."""
    match node:
        case ast.Compare(left, [operator], comparators):
            yield from (ast.Compare(left, [other()], comparators) for other in _COMPARISONS[type(operator)])
        case ast.BinOp(left, operator, right) if type(operator) in _ARITHMETIC:
            yield ast.BinOp(left, _ARITHMETIC[type(operator)](), right)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Constant()):  # a docstring
            pass
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
    if is_test and not isinstance(node, _SIMPLE):
        yield ast.UnaryOp(ast.Not(), node)


class _Mutated(SourceFileLoader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        names = path.relative_to(ROOT).with_suffix("").parts
        super().__init__(".".join(names[:-1] if names[-1] == "__init__" else names), str(path))
        self._tree = tree

    def get_code(self, fullname: str) -> Any:
        return compile(ast.fix_missing_locations(self._tree), self.path, "exec")

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )


def _survives(mutant: Mutant | None, tree: ast.Module | None, tests: list[str], limit: int) -> bool:
    """Whether the tests pass with a mutant, or `None` for the code as it is."""
    if (child := os.fork()) == 0:
        signal.alarm(limit)  # its default: the process ends
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        if mutant is not None and tree is not None:
            mutant.apply()
            sys.meta_path.insert(0, _Mutated(mutant.path, tree))  # type: ignore[arg-type]
        os._exit(int(pytest.main(["-x", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", *tests])))
    return os.waitpid(child, 0)[1] == 0


@click.command(help=__doc__)
@click.argument("part", type=click.Choice([*PARTS]))
@click.option("--file", "within", default="", help="Only files whose path holds this.")
@click.option("--sample", type=int, help="So many mutants, drawn at random. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
def main(part: str, within: str, sample: int | None, seed: int) -> None:
    code, tests = (text.split() for text in PARTS[part])
    found = [path for each in code for path in ([ROOT / each] if each.endswith(".py") else (ROOT / each).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in sorted(found) if within in str(path)}
    every = [mutant for path, tree in trees.items() for mutant in mutants(path, tree)]
    chosen = every if sample is None else random.Random(seed).sample(every, min(sample, len(every)))
    paths = [str(ROOT / "tests" / each) for each in tests]
    start = time.monotonic()
    if not _survives(None, None, paths, 3600):
        sys.exit("The tests fail on the code as it is.")
    limit = 60 + 3 * int(time.monotonic() - start)
    print(f"{len(every)} mutants, of which {len(chosen)} are tried; the tests take {time.monotonic() - start:.0f} s")
    survivors = 0
    for mutant in chosen:
        if _survives(mutant, trees[mutant.path], paths, limit):
            survivors += 1
            print(mutant, flush=True)
    print(f"{survivors} of {len(chosen)} survive: {1 - survivors / max(len(chosen), 1):.1%} are killed")


if __name__ == "__main__":
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import hypothesis
    import keras  # noqa: F401  # imported ahead of all forks
    import pytest
    import tensorflow as tf  # noqa: F401

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    hypothesis.settings.load_profile("mutants")
    main()
