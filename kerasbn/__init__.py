"""Batch normalization for existing Keras models: put it in, train, and fold it away for serving."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kerasbn.errors import KerasBNError as KerasBNError
from kerasbn.errors import ModelFileError as ModelFileError
from kerasbn.errors import OptionError as OptionError
from kerasbn.errors import ProcessError as ProcessError
from kerasbn.errors import UnsupportedModelError as UnsupportedModelError
from kerasbn.errors import VerificationError as VerificationError

if TYPE_CHECKING:
    from kerasbn import callbacks as callbacks
    from kerasbn import layers as layers
    from kerasbn import recipes as recipes
    from kerasbn.averaging import average as average
    from kerasbn.comparison.comparison import compare as compare
    from kerasbn.comparison.result import Comparison as Comparison
    from kerasbn.diagnosis.diagnosis import Diagnosis as Diagnosis
    from kerasbn.diagnosis.diagnosis import diagnose as diagnose
    from kerasbn.diagnosis.kinds import Finding as Finding
    from kerasbn.diagnosis.kinds import Kind as Kind
    from kerasbn.exporters import ExportReport as ExportReport
    from kerasbn.exporters import export as export
    from kerasbn.freezing import Frozen as Frozen
    from kerasbn.freezing import freeze as freeze
    from kerasbn.loading.load import load as load
    from kerasbn.passes.proposal import Edit as Edit
    from kerasbn.planner import Plan as Plan
    from kerasbn.planner import fold as fold
    from kerasbn.planner import plan as plan
    from kerasbn.planner import rewrite as rewrite
    from kerasbn.range_test.learning_rate import LearningRateCurve as LearningRateCurve
    from kerasbn.range_test.learning_rate import find_learning_rate as find_learning_rate
    from kerasbn.reasons import Reason as Reason
    from kerasbn.reasons import Skip as Skip
    from kerasbn.statistics.adaptation import adapted as adapted
    from kerasbn.statistics.calibration import calibrate as calibrate
    from kerasbn.statistics.variance_shift import variance_shift as variance_shift

    __version__: str

# Imported on first use: `kerasbn-rewrite --help` answers without TensorFlow.
_LAZY = {
    "Comparison": "kerasbn.comparison.result",
    "Diagnosis": "kerasbn.diagnosis.diagnosis",
    "Edit": "kerasbn.passes.proposal",
    "ExportReport": "kerasbn.exporters",
    "LearningRateCurve": "kerasbn.range_test.learning_rate",
    "Finding": "kerasbn.diagnosis.kinds",
    "Frozen": "kerasbn.freezing",
    "Kind": "kerasbn.diagnosis.kinds",
    "Plan": "kerasbn.planner",
    "Reason": "kerasbn.reasons",
    "Skip": "kerasbn.reasons",
    "adapted": "kerasbn.statistics.adaptation",
    "average": "kerasbn.averaging",
    "calibrate": "kerasbn.statistics.calibration",
    "callbacks": "kerasbn.callbacks",
    "compare": "kerasbn.comparison.comparison",
    "diagnose": "kerasbn.diagnosis.diagnosis",
    "export": "kerasbn.exporters",
    "find_learning_rate": "kerasbn.range_test.learning_rate",
    "fold": "kerasbn.planner",
    "freeze": "kerasbn.freezing",
    "layers": "kerasbn.layers",
    "load": "kerasbn.loading.load",
    "plan": "kerasbn.planner",
    "recipes": "kerasbn.recipes",
    "rewrite": "kerasbn.planner",
    "variance_shift": "kerasbn.statistics.variance_shift",
}

__all__ = [
    *("KerasBNError", "ModelFileError", "OptionError", "ProcessError", "UnsupportedModelError", "VerificationError"),
    *_LAZY,
]


def _imported(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # late, as it takes longer than all else here

        return version(__name__)
    if name not in _LAZY:
        raise AttributeError(f"module 'kerasbn' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = module if _LAZY[name] == f"kerasbn.{name}" else getattr(module, name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # to which a name that is misspelt is an error
    __getattr__ = _imported


def __dir__() -> list[str]:
    return sorted(__all__)
