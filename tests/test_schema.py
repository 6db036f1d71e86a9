"""Reports are as the schema that is published says, and nothing is in them that it does not tell of."""

import json
import pathlib

import jsonschema
import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.cli.failure import Failure
from kerasbn.cli.reporting import document
from kerasbn.cli.result import Diagnosed, Folding, Forecast, Result
from kerasbn.comparison.result import Comparison, Row
from kerasbn.comparison.significance import Difference
from kerasbn.provenance import REPORT_VERSION

SCHEMA = json.loads(
    (pathlib.Path(__file__).parent.parent / "docs" / "schemas" / f"report-{REPORT_VERSION}.json").read_text()
)


def _check(report, kind):
    """Hold a report against what the schema has of its kind, and against the whole."""
    report = json.loads(json.dumps(report, allow_nan=False))
    schema = {**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}
    jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)
    jsonschema.validate(report, _closed(schema), jsonschema.Draft202012Validator)


def _closed(schema):
    """The schema, but that all there is must be told of."""
    closed = json.loads(json.dumps(schema))
    for definition in _objects(closed["$defs"]):
        if "properties" in definition:
            definition["additionalProperties"] = True
            definition["propertyNames"] = {"enum": _told(closed, definition)}
    return closed


def _objects(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _objects(value)


def _told(schema, definition):
    """The keys that an object may have: those of a report are told of in two places."""
    names = set(definition["properties"])
    for one, report in (("run", "report"), ("examined", "report_of_diagnosis")):
        if definition in (schema["$defs"][one], schema["$defs"][report]["allOf"][1]):
            names |= set(schema["$defs"][one]["properties"]) | {"version", "versions"}
    return sorted(names)


def _dropping():
    layers = [L.Dense(4, activation="relu", name="a"), L.Dropout(0.5), L.BatchNormalization(name="bn"), L.Dense(3)]
    return keras.Sequential([keras.Input((12,), name="x"), *layers])


PLANS = {
    "inserting": {},
    "folding": {"position": "none", "dropout": "none", "fold": True},
    "rules": {"rules": [("a", "after")], "norm": keras.layers.BatchNormalization()},
    "data": {"data": np.zeros((4, 12), "float32")},
    "example": {"inputs": np.zeros((4, 12), "float32")},
    "nothing": {"position": "none", "dropout": "none"},
}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["version"]["const"] == REPORT_VERSION


@pytest.mark.parametrize("case", PLANS)
def test_plans(case):
    plan = kerasbn.plan(_dropping(), **PLANS[case])
    report = plan.to_dict()
    _check(report, "plan")
    assert sum(report["counts"].values()) == len(plan.edits)
    assert sum(report["left_alone"].values()) == len(plan.skips)


@pytest.mark.parametrize("reach", [0.01, float("inf")])
def test_comparisons(reach):
    behind = [Difference(0.0, reach, 8), Difference(0.1, reach, 8), None]
    rows = tuple(
        Row(name, ("auto",), {"rules": (("a", "after"),)}, rate, 8, scores, {8: scores}, how, outcome)
        for name, rate, scores, how, outcome in (
            ("none", 0.1, (0.9, 0.8), behind[0], "leads"),
            ("after", None, (0.8, 0.7), behind[1], "behind"),
            ("before", 0.1, (float("nan"), 0.7), behind[2], "diverged"),
        )
    )
    _check(Comparison("net", "accuracy", (0, 1), rows, ("A note.",), 1.5, True).to_dict(), "comparison")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "options"),
    [("a.keras", {}), ("a.onnx", {"verify": False}), ("a.tflite", {"quantize": "float16"}), ("a", {"fold": False})],
)
def test_outputs(name, options, tmp_path):
    _check(kerasbn.export(_dropping(), tmp_path / name, **options).to_dict(), "output")


def test_runs(tmp_path):
    model = _dropping()
    output = kerasbn.export(model, tmp_path / "a.keras")
    plan = kerasbn.plan(model)
    folding = Folding(1, {"head": 1}, "", kerasbn.plan(model).skips, None)
    written = Result(pathlib.Path("a.h5"), ("mended",), plan, 2, 1e-7, (output,))
    planned = Result(pathlib.Path("b.h5"), (), plan, forecasts=(Forecast(pathlib.Path("b.onnx"), "onnx", folding),))
    told = [each.to_dict() for each in (written, planned, Failure("not there", 2, pathlib.Path("c.h5")))]
    _check(json.loads(document(told, several=True)), "reports")
    for one in told[:2]:
        _check(json.loads(document([one], several=False)), "report")


def test_diagnoses():
    model = _dropping()
    model.get_layer("bn").moving_mean.assign(np.full(4, 9.0))
    diagnosis = kerasbn.diagnose(model, np.ones((64, 12), "float32"))
    _check(diagnosis.to_dict(), "diagnosis")
    assert sum(diagnosis.to_dict()["counts"].values()) == len(diagnosis.findings) > 0
    told = [Diagnosed(pathlib.Path("a.h5"), ("mended",), diagnosis), Failure("not there", 2, pathlib.Path("c.h5"))]
    told = [each.to_dict() for each in told]
    _check(json.loads(document(told, several=True)), "reports")
    _check(json.loads(document(told[:1], several=False)), "report_of_diagnosis")


@pytest.mark.parametrize("change", [{"version": 2}, {"counts": {"invent": 1}}, {"edits": [{"site": "a#0"}]}])
def test_what_is_something_else_is_refused(change):
    with pytest.raises(jsonschema.ValidationError):
        _check(kerasbn.plan(_dropping()).to_dict() | change, "plan")


def test_what_is_not_told_of_is_noticed():
    with pytest.raises(jsonschema.ValidationError):
        _check(kerasbn.plan(_dropping()).to_dict() | {"news": 1}, "plan")
