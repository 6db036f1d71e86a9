"""Networks of `keras.applications` with batch normalization far from fresh: folded, exact, and what is left."""

import keras
import numpy as np
import pytest
from keras.layers import BatchNormalization

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, inference, random_inputs, randomize, snapshot

# The side of the input, and how many batch normalizations are left. In DenseNet and ResNetV2 those stand ahead of an
# activation, on a value that goes on to the next block as it is.
QUICK = {"MobileNetV2": (32, 0), "InceptionV3": (75, 0), "DenseNet121": (32, 62)}
SLOW = {
    "DenseNet169": (32, 86),
    "DenseNet201": (32, 102),
    **{f"EfficientNetB{number}": (32, 0) for number in range(8)},
    **{f"EfficientNetV2{size}": (32, 0) for size in ("B0", "B1", "B2", "B3", "S", "M", "L")},
    "InceptionResNetV2": (75, 0),
    "MobileNet": (32, 0),
    "MobileNetV3Large": (32, 0),
    "MobileNetV3Small": (32, 0),
    "NASNetLarge": (32, 0),
    "NASNetMobile": (32, 0),
    **{f"ResNet{depth}": (32, 0) for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": (32, left) for depth, left in ((50, 17), (101, 34), (152, 51))},
    "Xception": (71, 0),
}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_folded(name):
    size, left = {**QUICK, **SLOW}[name]
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    randomize(model)
    for layer in model.layers:
        if isinstance(layer, BatchNormalization) and layer.scale:
            layer.gamma.assign(layer.gamma * np.exp(-2))  # or the outputs of the deepest would not be finite
    before = snapshot(model)
    plan = kerasbn.plan(model, position="none", dropout="none", fold=True)
    folded = plan.apply()
    assert snapshot(model) == before
    assert sum(isinstance(layer, BatchNormalization) for layer in folded.layers) == left
    assert {skip.reason for skip in plan.skips} <= {Reason.OTHER_CONSUMERS, Reason.NEGATIVE_SCALE}
    inputs = random_inputs(model)
    (expected,), (nudged,) = inference(model, inputs), inference(model, inputs * np.float32(1 + 1e-6))
    assert np.all(np.isfinite(expected))
    assert_same_function(model, folded, inputs, tolerance=1e-4, amplification=30 * np.max(np.abs(nudged - expected)))


def test_weights_of_the_preprocessing_stay():
    """EfficientNet's Normalization keeps its statistics outside its variables, too."""
    model = keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=10)
    model.layers[2].adapt(np.random.default_rng(0).normal(2.0, 3.0, size=(4, 32, 32, 3)))
    assert_same_function(model, kerasbn.fold(model), random_inputs(model), tolerance=1e-4)
