"""Pages in headless Chromium: they look well on every screen, and keys reach what there is."""

import pathlib
import sys

import keras
import numpy as np
import pytest

import kerasbn
from tests.helpers import randomize
from tests.pages.test_pages import PAGES, PLANS, _plan

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kerasbn[browser]'")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))
from tools.screenshots import BOARD, SCHEMES, SCREENS, board, browser_of, draw, faults_of  # noqa: E402

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        try:
            browser = browser_of(running)
        except playwright.Error as error:
            pytest.skip(f"needs Chromium: {error}")
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open HTML: the page, and a list of what it wants from elsewhere or complains about."""
    contexts, wanted = [], []

    def open_(html, screen="wide", scheme="light", **more):
        width, height = SCREENS[screen]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wanted.append(message.text))
        page.on("dialog", lambda dialog: wanted.append(dialog.message))
        page.on("request", lambda request: wanted.append(request.url) if request.url != url else None)
        path = tmp_path / "page.html"
        path.write_text(html, "utf-8")
        url = path.as_uri()
        page.goto(url)
        return page, wanted

    yield open_
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("case", PAGES)
def test_looks_well(case, screen, scheme, opened):
    from kerasbn.pages.page import whole

    page, wanted = opened(whole(PAGES[case]()), screen, scheme)
    assert faults_of(page) == []
    assert wanted == []


@pytest.mark.parametrize("case", PLANS)
def test_without_scripts_it_is_the_same(case, opened):
    html = _plan(case).to_html()
    (first, _), (second, _) = opened(html), opened(html, java_script_enabled=False)
    assert first.screenshot(full_page=True) == second.screenshot(full_page=True)


def test_keys_lead_from_a_call_to_its_reason(opened):
    page, _ = opened(_plan("branches").to_html())
    marked = page.locator("svg a")
    marked.first.focus()
    assert page.evaluate("getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth") == "3px"
    page.keyboard.press("Enter")
    target = page.locator("tr:target")
    assert target.count() == 1
    assert marked.first.locator(".kbn-name").text_content() in target.text_content()


def test_what_is_marked_has_a_name(opened):
    """As the accessibility tree has it: what it is, what becomes of it, and why."""
    plan = _plan("branches")
    page, _ = opened(plan.to_html())
    told = page.locator("body").aria_snapshot()
    for edit in plan.edits:
        assert edit.detail.replace('"', '\\"') in told or edit.detail in told
    assert "main" in told
    assert 'heading "What changes, and why" [level=2]' in told


@pytest.mark.parametrize(("dark", "theme"), [(True, "light"), (False, "dark")])
def test_in_a_notebook_it_goes_by_the_theme_of_that(dark, theme, opened):
    cell = f'<body data-jp-theme-light="{"false" if dark else "true"}">{_plan("branches")._repr_html_()}<p id="o">x</p>'
    page, _ = opened(f"<!DOCTYPE html><meta charset=utf-8>{cell}", scheme=theme)
    colour = page.evaluate("getComputedStyle(document.querySelector('.kbn')).backgroundColor")
    assert colour == ("rgb(15, 20, 26)" if dark else "rgb(255, 255, 255)")
    plain, _ = opened("<!DOCTYPE html><meta charset=utf-8><body><p id=o>x</p>", scheme=theme)
    styles = """JSON.stringify(Array.from(getComputedStyle(o))
        .filter(name => !/width|height|size|origin/.test(name))
        .map(name => [name, getComputedStyle(o).getPropertyValue(name)]))"""
    assert page.evaluate(styles) == plain.evaluate(styles)


def test_it_prints_whole(opened):
    """What scrolls on a screen is all there on paper."""
    page, _ = opened(_plan("repeating").to_html())
    page.emulate_media(media="print")
    cut = "[...document.querySelectorAll('.kbn-scroll')].filter(e => e.scrollHeight > e.clientHeight + 1).length"
    assert page.evaluate(cut) == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.kbn')).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


def test_curve_in_a_notebook(opened):
    curve = kerasbn.LearningRateCurve(
        (1e-4, 1e-3, 1e-2), (2.0, 1.0, 3.0), (2.0, 1.2, 2.5), {"minimum": 2.5e-3, "steep": 1e-3}
    )
    page, wanted = opened(curve._repr_html_(), "phone")
    assert page.locator(".kbn-chart").bounding_box()["width"] > 300
    assert (faults_of(page), wanted) == ([], [])


@pytest.mark.tensorflow
@pytest.mark.skipif(not (BOARD / "node_modules").is_dir(), reason="needs onnxruntime-web: make web")
@pytest.mark.parametrize("shape", [(64,), (8, 8, 1)])
def test_what_is_drawn_is_what_the_network_gets(shape, browser, tmp_path):
    """In examples/serving/browser, with networks of pixels and of images."""
    layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dense(10, "softmax")]
    model = randomize(keras.Sequential([keras.Input(shape), *layers]))
    kerasbn.export(model, tmp_path / "digits.onnx")
    read = set()
    with board(browser, tmp_path / "digits.onnx") as page:
        for column in (1, 3, 6):
            pixels = np.zeros((8, 8), "float32")
            pixels[:, [column - 1, column + 1]] = 0.4  # the sides of a stroke
            pixels[:, column] = 1
            expected = model.predict(pixels.reshape(1, *shape), verbose=0).argmax()
            draw(page, [(row, column) for row in range(8)])
            page.wait_for_function(f"document.querySelector('output').value === '{expected}'", timeout=5000)
            read.add(expected)
    assert len(read) > 1
