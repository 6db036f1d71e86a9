"""Pictures of reports, in headless Chromium: light and dark, on a wide screen and on a phone.

    pip install -e '.[browser]'
    python tools/screenshots.py /tmp/pictures                  # of the reports below, four each
    python tools/screenshots.py /tmp/pictures page.html        # of a page that there is
    python tools/screenshots.py /tmp/pictures --docs           # those in docs/guides/report.md, anew
    python tools/screenshots.py /tmp/pictures --board digits.onnx  # that of examples/serving/browser in the tutorial

It prints the size of each page, how long it took to make and how long Chromium takes to open it, and whether anything
is wrong with how it looks that a program can see: see `faults_of`.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import click

ROOT = Path(__file__).parent.parent
GUIDES = ROOT / "docs" / "guides"
BOARD = ROOT / "examples" / "serving" / "browser"
CHROMIUM = "/usr/bin/chromium"
SCREENS = {"wide": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")

_FAULTS = """() => {
    const faults = [];
    const page = document.documentElement;
    if (page.scrollWidth > page.clientWidth) faults.push(`the page is ${page.scrollWidth} wide`);
    for (const text of document.querySelectorAll("svg:not(.kbn-chart) g text")) {
        const group = text.closest("g[transform]"), box = group.querySelector(".kbn-box").getBoundingClientRect();
        const own = text.getBoundingClientRect();
        if (own.left < box.left || own.right > box.right + 0.5) faults.push(`clipped: ${text.textContent}`);
    }
    for (const line of document.querySelectorAll("svg g[transform] > a, svg g[transform] > g")) {
        const [label, kind] = [...line.querySelectorAll("text:not(.kbn-sign)")].map(t => t.getBoundingClientRect());
        if (label.right > kind.left) faults.push(`overlapping: ${line.querySelector("text").textContent}`);
    }
    const boxes = [...document.querySelectorAll(".kbn-box")]
        .map(box => [box.closest("svg"), box.getBoundingClientRect()]);
    boxes.forEach(([svg, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
        if (svg === other && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
            faults.push("two boxes overlap");
    }));
    return faults;
}"""


def faults_of(page: Any) -> list[str]:
    """What is wrong with a page as it looks: wider than the screen, labels cut or over one another, boxes likewise."""
    return list(page.evaluate(_FAULTS))


def browser_of(playwright: Any) -> Any:
    """Chromium: the system's, else playwright's own."""
    found = {"executable_path": CHROMIUM} if Path(CHROMIUM).exists() else {}
    return playwright.chromium.launch(**found)


def digits() -> Any:
    """The digits example, written in three formats."""
    import keras

    model = keras.Sequential([keras.Input((64,), name="pixels")], name="digits")
    for name in ("fc1", "fc2"):
        model.add(keras.layers.Dense(100, activation="relu", name=name))
        model.add(keras.layers.Dropout(0.5, name=f"{name}_dropout"))
    model.add(keras.layers.Dense(10, activation="softmax", name="digit"))
    return model


def two_inputs() -> Any:
    """A picture and some figures, for two heads."""
    import keras
    from keras import layers

    picture, figures = keras.Input((32, 32, 3), name="picture"), keras.Input((12,), name="figures")
    x = picture
    for index, width in enumerate((16, 32, 64)):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"conv{index}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    y = layers.Dropout(0.3, name="drop")(layers.Dense(32, activation="tanh", name="figures_dense")(figures))
    both = layers.Concatenate(name="both")([x, y])
    both = layers.Dense(64, activation="relu", name="mixed")(both)
    kind = layers.Dense(4, activation="softmax", name="kind")(both)
    price = layers.Dense(1, name="price")(both)
    return keras.Model([picture, figures], [kind, price], name="two_inputs")


def application(name: str) -> Callable[[], Any]:
    """A network of `keras.applications` with random weights."""

    def make() -> Any:
        import keras

        return getattr(keras.applications, name)(weights=None)

    return make


MODELS: Mapping[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "digits": (digits, (".keras", ".onnx", ".tflite")),
    "two_inputs": (two_inputs, (".onnx",)),
    "ResNet50": (application("ResNet50"), (".onnx",)),
    "ResNet152": (application("ResNet152"), ()),
}


def report_on(name: str, folder: Path) -> Path:
    """Rewrite a model, write it, and write the page about that."""
    import kerasbn
    from kerasbn.cli.reporting import Run, page

    make, suffixes = MODELS[name]
    model = make()
    plan = kerasbn.plan(model, fold=not suffixes, **({} if suffixes else {"position": "none", "dropout": "none"}))
    result = plan.apply() if suffixes else model
    outputs = [
        kerasbn.export(result, folder / f"{name}{suffix}", overwrite=True, fold=suffix != ".keras")
        for suffix in suffixes
    ]
    started = time.perf_counter()
    html = page([Run(Path(f"{name}.keras"), (), plan, None, outputs)])
    path = folder / f"{name}.html"
    path.write_text(html, "utf-8")
    print(f"{path.name}: {len(html.encode()) / 1000:.0f} kB, made in {time.perf_counter() - started:.2f} s")
    return path


def pictures(browser: Any, path: Path, folder: Path) -> Iterator[str]:
    """Take the pictures of a page, and tell what is wrong with it."""
    for scheme in SCHEMES:
        for screen, (width, height) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            started = time.perf_counter()
            page.goto(path.resolve().as_uri())
            opened = time.perf_counter() - started
            name = f"{path.stem}-{screen}-{scheme}"
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            yield f"{name}: opened in {opened:.2f} s; {'; '.join(faults_of(page)) or 'nothing wrong'}"
            page.close()


def pictures_of_docs(browser: Any, folder: Path) -> None:
    """Take the pictures in docs/guides/report.md."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    page.goto((folder / "two_inputs.html").resolve().as_uri())
    page.screenshot(path=GUIDES / "report.png")
    page.close()
    page = browser.new_page(viewport={"width": 1330, "height": 1000}, color_scheme="dark")
    page.goto((folder / "ResNet50.html").resolve().as_uri())
    page.locator(".kbn-pair").last.screenshot(path=GUIDES / "report_resnet50.png")
    page.close()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


@contextlib.contextmanager
def board(browser: Any, model: Path) -> Iterator[Any]:
    """The page of examples/serving/browser, opened with an ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        for path in BOARD.iterdir():
            (Path(folder) / path.name).symlink_to(path)
        shutil.copy(model, Path(folder) / "digits.onnx")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=folder)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page = browser.new_page(viewport={"width": 390, "height": 500})
            try:
                page.goto(f"http://127.0.0.1:{server.server_port}")
                page.wait_for_selector("td")
                yield page
            finally:
                page.close()
                server.shutdown()


def draw(page: Any, squares: Iterable[tuple[int, int]]) -> None:
    """Draw a stroke over these squares of the board, each a row and a column, and nothing else."""
    page.click("button")
    for row, column in squares:
        box = page.locator("td").nth(8 * row + column).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 1)
        page.mouse.up()


def picture_of_board(browser: Any, model: Path) -> None:
    """Take the picture in docs/tutorials/fold_export_serve.md."""
    three = [*((0, c) for c in (2, 3, 4)), (1, 5), (2, 5), (3, 4), (4, 5), (5, 5), (6, 5), *((7, c) for c in (4, 3, 2))]
    with board(browser, model) as page:
        draw(page, three)
        page.wait_for_timeout(1000)  # each square has an answer of its own
        print(f"3 was drawn, and {page.locator('output').text_content()} read")
        page.screenshot(path=ROOT / "docs" / "tutorials" / "board.png")


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("pages", type=click.Path(path_type=Path, exists=True), nargs=-1)
@click.option("--model", "models", type=click.Choice(list(MODELS)), multiple=True, help="Of these alone.")
@click.option("--docs", is_flag=True, help="Those in the documentation as well.")
@click.option("--board", "onnx", type=click.Path(path_type=Path, exists=True), help="Of the board, with this model.")
def main(folder: Path, pages: tuple[Path, ...], models: tuple[str, ...], docs: bool, onnx: Path | None) -> None:
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    pages = pages or (() if onnx else tuple(report_on(name, folder) for name in models or MODELS))
    with sync_playwright() as playwright:
        browser = browser_of(playwright)
        if onnx:
            picture_of_board(browser, onnx)
        for path in pages:
            for line in pictures(browser, path, folder):
                print(line)
        if docs:
            pictures_of_docs(browser, folder)
        browser.close()


if __name__ == "__main__":
    main()
