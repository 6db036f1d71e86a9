"""What the documentation shows runs, in pages and in docstrings; it is complete, and its links lead somewhere."""

import contextlib
import importlib
import inspect
import io
import pathlib
import re

import keras
import numpy as np
import pytest

import kerasbn

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts]
OUTPUT = re.compile(r"\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SNIPPET = re.compile(r"^```(?:python|\{code-cell\} ipython3)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_SNIPPETS = [path for path in PAGES if SNIPPET.search(path.read_text()) and path.stem != "teaching"]
ROOMS = ("kerasbn", "kerasbn.layers", "kerasbn.callbacks")
NAMES = [
    f"{room}.{name}"
    for room in ROOMS
    for name, value in inspect.getmembers(importlib.import_module(room))
    if not name.startswith("_") and callable(value) and value.__module__.startswith("kerasbn")
]
# Parts of what verbs return, and enums, which have pages of their own.
WITHOUT_EXAMPLE = ("Edit", "Error", "Finding", "Kind", "Reason", "Skip")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    keras.utils.clear_session(free_memory=False)  # names start over; a garbage collection takes a second by now
    return tmp_path


def name_of(page):
    return page.relative_to(DOCS).with_suffix("").as_posix()


def marks_of(page):
    return [pytest.mark.tensorflow] * ("kerasbn.export(" in page.read_text())


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page), marks=marks_of(page)) for page in WITH_SNIPPETS])
def test_page(page, folder):
    namespace = {"__name__": page.stem}
    text, compared = page.read_text(), 0
    for snippet in SNIPPET.finditer(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(snippet[1], str(page), "exec"), namespace)
        if output := OUTPUT.match(text, snippet.end() + 1):
            assert printed.getvalue() == output[1]
            compared += 1
    assert compared == text.count("\n```text\n")


@pytest.fixture
def at_hand(folder):
    """What examples of docstrings speak of."""
    layers = keras.layers
    inside = [layers.Dense(16, activation="relu"), layers.Dropout(0.5), layers.Dense(16), layers.BatchNormalization()]
    backbone = keras.Sequential([keras.Input((8,)), *inside], name="backbone")
    model = keras.Sequential([keras.Input((8,)), backbone, layers.Dense(4, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = np.random.rand(64, 8).astype("float32"), np.random.randint(4, size=64)
    (folder / "checkpoints").mkdir()
    for epoch in (1, 2):
        model.save(f"checkpoints/epoch_{epoch}.keras")
    model.save("trained_with_keras_2.h5")
    others = {"x_train": x, "x_test": x, "x_target": x, "held_out": (x, y)}
    return {"keras": keras, "kerasbn": kerasbn, "Path": pathlib.Path, "model": model, "x": x, "y": y, **others}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(WITHOUT_EXAMPLE)])
def test_docstring(name, at_hand):
    room, _, short = name.rpartition(".")
    text = inspect.getdoc(getattr(importlib.import_module(room), short))
    examples = SNIPPET.findall(text)
    assert examples
    for example in examples:
        exec(compile(example, name, "exec"), at_hand)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_in_the_reference(name):
    pages = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    assert re.search(rf"^\.\. auto\w+:: {re.escape(name)}$", pages, re.MULTILINE)


@pytest.mark.parametrize(("enum", "page"), [(kerasbn.Reason, "reasons"), (kerasbn.Kind, "kinds")])
def test_every_member_has_something_to_do_about_it(enum, page):
    blocks = re.findall(
        r"^```\{meanings\}.*?\n(.*?)^```$", (DOCS / "reference" / f"{page}.md").read_text(), re.M | re.S
    )
    words = [line.partition(":")[0] for block in blocks for line in block.splitlines()]
    assert sorted(words) == sorted(member.value for member in enum)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#\s]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_reproduction_is_listed():
    folder = DOCS / "reproduce"
    listed = re.findall(r"^- \[\]\((\w+)\.md\)$", (folder / "index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in folder.glob("*.md") if path.stem != "index")
