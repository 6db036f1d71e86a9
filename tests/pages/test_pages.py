"""Pages show all there is to say, by themselves, to everybody; whatever the layers are called."""

import itertools
import re

import keras
import pytest
from keras import layers as L

import kerasbn
from kerasbn.pages.chart import HEIGHT, WIDTH
from kerasbn.pages.content import WORDS, Curve, Files, Findings, Page, Part, Scores
from kerasbn.pages.drawing import drawing_of
from kerasbn.pages.page import GLYPHS, fragment, whole
from kerasbn.passes.picture import picture_of
from tests.helpers import sequential
from tests.pages.reading import Reading, colours, contrast

HOSTILE = "<script>alert(1)<b onmouseover='x' \"&amp;{{ 7 * 7 }}"


def _branches():
    inputs = keras.Input((8, 8, 3), name="picture")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inputs)
    x = L.Conv2D(4, 3, padding="same", name="other")(L.Dropout(0.5, name="drop")(x))
    y = L.Conv2D(4, 1, name="short")(inputs)
    sums = L.Add(name="sum")([x, y])
    figures = keras.Input((5,), name="figures")
    both = L.Concatenate(name="both")([L.GlobalAveragePooling2D(name="pool")(sums), figures])
    heads = [L.Dense(2, name="kind")(both), L.Dense(1, name="price")(both)]
    return keras.Model([inputs, figures], heads, name="branches")


def _nested():
    inner = keras.Sequential([keras.Input((12,)), L.Dense(12, activation="relu", name="fc")], name="inner")
    inputs = keras.Input((12,), name="in")
    return keras.Model(inputs, L.Dense(2, name="head")(inner(inner(inputs))))


def _blocks(count):
    inputs = x = keras.Input((8, 8, 4), name="in")
    for index in range(count):
        y = L.ReLU(name=f"block{index}_relu")(L.Conv2D(4, 3, padding="same", name=f"block{index}_conv1")(x))
        x = L.Add(name=f"block{index}_add")([x, L.Conv2D(4, 3, padding="same", name=f"block{index}_conv2")(y)])
    return keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling2D(name="pool")(x)))


def _normalized():
    layers = [L.Dense(8, name="a"), L.BatchNormalization(name="a_bn"), L.ReLU(name="act")]
    return sequential(*layers, L.BatchNormalization(name="b_bn"), L.Activation("tanh", name="tanh"))


def _reparametrized():
    inputs = keras.Input((6,), name="in")
    branches = [L.Dense(6, name=name)(inputs) for name in ("a", "b")]
    return keras.Model(inputs, L.Add(name="total")(branches))


FOLD = {"position": "none", "dropout": "none", "fold": True}
PLANS = {
    "branches": (_branches, {}),
    "nested": (_nested, {}),
    "hostile": (lambda: sequential(L.Dense(4, activation="relu", name=HOSTILE)), {}),
    "repeating": (lambda: _blocks(30), {}),
    "folded": (_normalized, FOLD),
    "merged": (_reparametrized, FOLD),
    "recurrent": (lambda: sequential(L.LSTM(4, name="lstm"), shape=(5, 3)), {"recurrent": "sequence_wise"}),
    "nothing to do": (lambda: keras.Sequential([keras.Input((3,)), L.Dense(2)]), {}),
}
CURVE = Curve("Loss", (1e-4, 1e-3, 1e-2, 1e-1), (2.0, 1.5, 1.0, 5.0), (2.0, 1.5, 1.1, 4.0), 0.02)
FILE = {
    "path": f"/tmp/{HOSTILE}.onnx",
    "format": "onnx",
    "bytes": 1234567,
    "seconds": 1.5,
    "nodes": 7,
    "folded": 2,
    "kept": {"input": 1},
    "max_error": 1.25e-7,
    "quantize": None,
    "inputs": {"x": "float32 (batch, 4)"},
    "outputs": {"y": "float32 (batch, 2)"},
    "notes": ["axis 1 is 5"],
    "versions": {},
}


FINDING = {"site": HOSTILE, "kind": "statistics", "detail": "Off.", "remedy": "kerasbn.calibrate(model, data)"}


def _plan(case):
    make, options = PLANS[case]
    return kerasbn.plan(make(), **options)


def _pages():
    for case in PLANS:
        yield case, lambda case=case: _plan(case)._page
    files = Files("Files", [FILE, {**FILE, "max_error": None, "kept": {}}], {"input": "Why."})
    yield "files", lambda: Page("Files", (Part("", (), (files,)),), {"keras": "3"})
    for case, found in {"findings": [FINDING], "no findings": []}.items():
        findings = Findings("Found", found, {"statistics": "What it means."}, ("Not all could be seen.",))
        yield case, lambda findings=findings: Page("Diagnosis", (Part("", (), (findings,)),))
    scores = Scores("What came out", ("candidate", "score"), (("none", "0.9"), (HOSTILE, "0.8")), ("A note.",))
    yield "scores", lambda: Page("Comparison", (Part("", (), (scores,)),))
    yield "curve", lambda: Page("Curve", (Part("", (), (CURVE,)),))
    yield (
        "several",
        lambda: Page(
            "Several",
            tuple(Part(f"{case}.keras", ("Read.",), (_plan(case).picture("Plan"), files)) for case in PLANS),
        ),
    )


PAGES = dict(_pages())


@pytest.mark.parametrize("case", PAGES)
def test_nothing_is_taken_from_elsewhere_and_nothing_runs(case):
    for html in (whole(PAGES[case]()), fragment(PAGES[case]())):
        reading = Reading(html)
        for tag, attributes in reading.elements:
            assert tag not in {"script", "link", "img", "image", "iframe", "object", "embed", "form", "base", "use"}
            for name, value in attributes.items():
                assert name not in {"src", "srcset", "style"}, (tag, name)
                assert not name.startswith("on"), (tag, name)
                assert name != "href" or value.startswith("#")
                assert (
                    "//" not in (value or "")
                    or (name, value) == ("xmlns", "http://www.w3.org/2000/svg")
                    or (HOSTILE in value)
                )
        assert not re.search(r"@import|url\(|expression|</", reading.style)


@pytest.mark.parametrize("case", PAGES)
def test_everybody_can_read_it(case):
    reading = Reading(whole(PAGES[case]()))
    assert reading.all("html", lang="en")
    assert len(reading.all("main")) == len(reading.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in reading.elements if re.fullmatch(r"h\d", tag)]
    assert all(new <= old + 1 for old, new in itertools.pairwise(levels)), levels
    assert len(reading.all("caption")) == len(reading.all("table"))
    assert all(found["scope"] in ("row", "col") for found in reading.all("th"))
    for region in reading.all("div"):
        assert region.keys() >= {"role", "aria-label", "tabindex"}, "what scrolls is to be reached with keys"
    for drawing in reading.all("svg"):
        assert drawing["role"] == "presentation" or (drawing["role"] in ("group", "img") and drawing["aria-label"])
    ids = [attributes["id"] for _, attributes in reading.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in reading.all("a")} <= set(ids)


@pytest.mark.parametrize("case", PAGES)
def test_in_a_notebook_it_is_an_element_whose_styles_concern_nothing_else(case):
    reading = Reading(fragment(PAGES[case]()))
    assert reading.elements[0] == ("div", {"class": "kbn kbn-cell"})
    assert not {tag for tag, _ in reading.elements} & {"html", "head", "body", "main", "h1", "h2", "nav", "meta"}
    rules = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", r"\1", reading.style)
    for selectors in re.findall(r"([^{}]+)\{", rules):
        assert all(re.search(r"(^|\s)\.kbn\b", each) for each in selectors.split(",")), selectors


@pytest.mark.parametrize("case", PLANS)
def test_every_reason_is_there(case):
    """In the table as well as in the drawing; of rows that are shown once, with their numbers as ranges."""
    plan = _plan(case)
    reading = Reading(plan.to_html())
    table = _without_numbers(reading.text("main"))
    tooltips = _without_numbers("\n".join(reading.tooltips))
    for line in (plan.outcome, *plan.notes):
        assert _without_numbers(line) in table
    for skip in plan.skips:
        for told in (skip.reason.value, skip.reason.meaning, _without_numbers(skip.detail)):
            assert told in table
            assert told in tooltips
    for edit in plan.edits:
        assert f"{WORDS[edit.kind]}: " in tooltips
        assert _without_numbers(edit.detail) in table
        assert _without_numbers(edit.detail) in tooltips
    assert HOSTILE not in plan.to_html()


def _without_numbers(text):
    return re.sub(r"\{\d+\.\.\d+\}|\d+", "0", text)


@pytest.mark.parametrize("case", [case for case in PLANS if case != "repeating"])
def test_every_call_of_a_small_network_is_drawn_once(case):
    plan = _plan(case)
    change = plan.picture("")
    for network in (change.before, change.after):
        drawing = drawing_of(network)
        assert sorted(line.name for box in drawing.boxes for line in box.lines) == sorted(
            node.name for node in network.nodes
        )
        assert not drawing.frames
    drawings = [change.before] if change.before == change.after else [change.before, change.after]
    assert len(Reading(plan.to_html()).tooltips) == sum(len(network.nodes) for network in drawings)


MARKS = {  # by what is before and after
    "branches": ({"conv#0": "replace", "drop#0": "remove", "kind#0": "skip"}, {"conv_bn#0": "insert"}),
    "folded": ({"a_bn#0": "fold", "b_bn#0": "skip"}, {"a#0": "fold", "b_bn#0": "skip"}),
    "merged": ({"total#0": "merge"}, {"total#0": "merge"}),
    "recurrent": ({}, {"lstm#0": "insert"}),
}


@pytest.mark.parametrize("case", MARKS)
def test_marks(case):
    change = _plan(case).picture("")
    for network, expected in zip((change.before, change.after), MARKS[case], strict=True):
        marks = {node.name: node.mark and node.mark.kind for node in network.nodes}
        assert expected.items() <= marks.items(), marks


def test_after_is_what_apply_gives():
    for case in PLANS:
        plan = _plan(case)
        again = kerasbn.plan(plan.apply(), position="none", dropout="none", custom_layers="keep").picture("").before
        after = plan.picture("").after
        assert sorted(node.name for node in after.nodes) == sorted(node.name for node in again.nodes)
        assert len(after.edges) == len(again.edges)


def test_what_repeats_itself_is_drawn_once():
    small, large = (kerasbn.plan(_blocks(count)) for count in (30, 120))
    for plan, count in ((small, 30), (large, 120)):
        change = plan.picture("")
        assert len(change.before.nodes) == 4 * count + 3
        for network, lines in ((change.before, 4), (change.after, 6)):
            drawing = drawing_of(network)
            assert [frame.times for frame in drawing.frames] == [count]
            assert sum(len(box.lines) for box in drawing.boxes) == lines + 3
    assert f"block{{0..119}}_add#0: Add, {120} times" in large.to_html()
    assert len(large.to_html()) < len(small.to_html()) + 200


def test_what_all_blocks_get_does_not_keep_them_apart():
    inputs, mask = keras.Input((8,), name="in"), keras.Input((8,), name="mask")
    x = inputs
    for index in range(40):
        x = L.Multiply(name=f"block{index}_masked")([L.Dense(8, name=f"block{index}_fc")(x), mask])
    drawing = drawing_of(kerasbn.plan(keras.Model([inputs, mask], x)).picture("").before)
    assert [frame.times for frame in drawing.frames] == [39]  # the last one is the output


def test_names_that_are_too_long_are_told_whole():
    name = "a_very_long_name_of_a_layer_that_nobody_can_read_at_once_number_12"
    html = kerasbn.plan(sequential(L.Dense(4, name=name))).to_html()
    (line,) = (
        line for box in drawing_of(_picture(name).before).boxes for line in box.lines if line.name == f"{name}#0"
    )
    assert (len(line.label), line.label[0], line.label[-2:]) == (40, "a", "12")
    assert f"{name}#0: Dense" in html


def _picture(name):
    return kerasbn.plan(sequential(L.Dense(4, name=name))).picture("")


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(scheme):
    """That of WCAG AA: 4.5 for text, 3 for lines and other signs."""
    found = colours(Reading(fragment(PAGES["curve"]())).style)[scheme]
    for ground in ("bg", "panel"):
        for text in ("fg", "muted", "link"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
        assert contrast(found["edge"], found[ground]) >= 3
        assert contrast(found["merge"], found[ground]) >= 3
    for kind in WORDS:
        assert contrast(found[kind], found[f"{kind}-bg"]) >= 4.5, kind
    assert contrast(found["fg"], found["replace-bg"]) >= 4.5


def test_no_meaning_is_in_colour_alone():
    assert len({*GLYPHS.values()}) == len(WORDS)
    reading = Reading(kerasbn.plan(_branches()).to_html())
    for kind in ("insert", "remove", "replace", "skip"):
        marked = reading.all("a", **{"class": f"kbn-{kind}"})
        assert marked
        assert reading.text("a").count(GLYPHS[kind]) == len(marked)


def test_the_same_plan_gives_the_same_page():
    assert _plan("branches").to_html() == _plan("branches").to_html()


def test_curve():
    curve = kerasbn.LearningRateCurve(CURVE.rates, CURVE.losses, CURVE.trend, {"minimum": CURVE.suggestion})
    reading = Reading(curve.to_html())
    (drawing,) = reading.all("svg", role="img")
    assert "the suggestion is 0.02" in drawing["aria-label"]
    assert {"1e-4", "1e-1", "learning rate", "loss"} <= {data for open_, data in reading.texts if "text" in open_}
    assert "0.02" in Reading(curve._repr_html_()).text("figcaption")


@pytest.mark.parametrize("losses", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-3.0, -5.0, -4.0), (1e-9, 1e9, 1e-9)])
def test_curves_of_all_kinds_have_places(losses):
    page = Page("", (Part("", (), (Curve("", (0.1, 0.2, 0.3), losses, losses, 0.2),)),))
    places = [float(each) for path in re.findall(r'd="(M[^"]*)"', whole(page)) for each in re.findall(r"[-\d.]+", path)]
    assert max(places) <= WIDTH
    assert min(places) >= -11 * HEIGHT


def test_names_that_are_no_text_can_be_written():
    assert r"caf\udce9.keras" in whole(Page("caf\udce9.keras", ())).encode().decode()


def test_reasons_have_meanings():
    assert all(reason.meaning.endswith(".") and len(reason.meaning) > 10 for reason in kerasbn.Reason)
    assert kerasbn.Reason("output") is kerasbn.Reason.OUTPUT


def test_pictures_leave_the_graph_alone():
    model = _branches()
    plan = kerasbn.plan(model)
    sites = plan._source.graph.sites
    picture_of("", plan._source.graph, plan.edits, plan.skips, "", ())
    assert plan._source.graph.sites is sites
    assert plan.apply().count_params() == kerasbn.rewrite(model).count_params()
