"""The callback sets the rate that the range test finds, and changes nothing else."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.callbacks import FindLearningRate
from tests.helpers import sequential

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(96, 12)).astype("float32")
Y = GENERATOR.integers(0, 3, 96)


def _compiled(optimizer):
    keras.utils.set_random_seed(3)
    model = sequential(L.Dense(16, "relu"), L.BatchNormalization(), L.Dropout(0.5))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def test_it_sets_and_logs_the_rate_at_the_epochs_it_was_told():
    model = _compiled(keras.optimizers.SGD(0.01, momentum=0.9))
    finds = FindLearningRate((X, Y), at_epochs=(1, 3), steps=30)
    history = model.fit(X, Y, epochs=4, verbose=0, callbacks=[finds]).history
    first, second = finds.curves[1].suggestion, finds.curves[3].suggestion
    assert list(finds.curves) == [1, 3]
    np.testing.assert_allclose(history["learning_rate"], [0.01, first, first, second], rtol=1e-6)


class Sets(keras.callbacks.Callback):
    """Sets the rates that another run has found."""

    def __init__(self, curves):
        super().__init__()
        self.curves = curves

    def on_epoch_begin(self, epoch, logs=None):
        if epoch in self.curves:
            self.model.optimizer.learning_rate = self.curves[epoch].suggestions["steep"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "loss scale"])
def test_training_goes_on_as_if_the_rates_had_been_known(wrapped):
    def optimizer():
        plain = keras.optimizers.Adam(0.01)
        return keras.optimizers.LossScaleOptimizer(plain) if wrapped else plain

    finds = FindLearningRate((X, Y), at_epochs=[0, 2], suggestion="steep", steps=20)
    found, known = _compiled(optimizer()), _compiled(optimizer())
    for model, callback in ((found, finds), (known, Sets(finds.curves))):
        keras.utils.set_random_seed(5)
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
    for ours, theirs in zip(found.variables, known.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


BAD = {
    "epochs": ({"at_epochs": (-1,)}, "at_epochs is"),
    "a word": ({"at_epochs": "0"}, "at_epochs is"),
    "suggestion": ({"suggestion": "best"}, "'steep', 'valley', 'minimum', 'slide'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case):
    options, message = BAD[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        FindLearningRate((X, Y), **options)


def test_a_schedule_is_refused():
    model = _compiled(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)))
    with pytest.raises(kerasbn.OptionError, match="follows a schedule"):
        model.fit(X, Y, verbose=0, callbacks=[FindLearningRate((X, Y))])
