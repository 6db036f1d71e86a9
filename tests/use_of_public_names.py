"""A program as users of kerasbn have theirs checked, by mypy and pyright, strictly; it is checked and not run."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type

import kerasbn
from kerasbn import Diagnosis, ExportReport, Kind, OptionError, Plan, Reason
from kerasbn.callbacks import Calibrate, FindLearningRate, InputPercentiles
from kerasbn.layers import BatchNormalization, BatchNormalizedRNN, from_keras, to_keras


def made(model: Any, lstm: Any) -> Any:
    """Layers are made with the arguments of their own."""
    norm = BatchNormalization(axis=-1, momentum=None, virtual_batch_size=16, synchronized=False)
    model.add(BatchNormalizedRNN(lstm, norm=norm))
    return from_keras(to_keras(model))


def rewritten(model: Any, data: Any) -> Any:
    """Options are checked one by one."""
    plan = kerasbn.plan(model, position="before", rules=[("fc*", "after")])
    assert_type(plan, Plan)
    for edit in plan.edits:
        assert_type(edit, kerasbn.Edit)
        assert_type(edit.site, str)
    for skip in plan.skips:
        assert_type(skip, kerasbn.Skip)
        assert_type(skip.reason, Reason)
    assert_type(plan.to_dict(), dict[str, Any])
    kerasbn.plan(model, position="behind")  # type: ignore[arg-type]
    kerasbn.plan(model, positoin="before")  # type: ignore[call-arg]
    try:
        return kerasbn.rewrite(model, data=data, **kerasbn.recipes.BN_X5)
    except OptionError as error:
        raise SystemExit(str(error)) from error


def trained(model: Any, data: Any) -> None:
    """What is measured has types of its own."""
    kerasbn.calibrate(model, data, steps=20)
    with kerasbn.adapted(model, data):
        assert_type(kerasbn.variance_shift(model, data), dict[str, float])
    frozen = kerasbn.freeze(model, "backbone/*", what="statistics")
    assert_type(frozen, kerasbn.Frozen)
    frozen.thaw()
    curve = kerasbn.find_learning_rate(model, data, steps=50)
    assert_type(curve, kerasbn.LearningRateCurve)
    assert_type(curve.suggestion, float)
    comparison = kerasbn.compare(model, data, validation_data=data, budget="1 min")
    assert_type(comparison, kerasbn.Comparison)
    assert_type(comparison.best, dict[str, Any])
    diagnosis = kerasbn.diagnose(model, data)
    assert_type(diagnosis, Diagnosis)
    for finding in diagnosis.findings:
        assert_type(finding, kerasbn.Finding)
        assert_type(finding.kind, Kind)
    model.fit(data, callbacks=[Calibrate(data), FindLearningRate(data), InputPercentiles("logs", data)])


def served(path: str) -> ExportReport:
    """Names that are misspelt are found."""
    model = kerasbn.average([path, path], data=None)
    report = kerasbn.export(kerasbn.fold(kerasbn.load(path)), "model.onnx", overwrite=True)
    assert_type(report, ExportReport)
    assert_type(kerasbn.__version__, str)
    kerasbn.exprot(model, path)  # type: ignore[attr-defined]
    return report
