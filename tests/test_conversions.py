"""kerasbn's layers into Keras's own and back."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn.layers import BatchNormalization, BatchNormalizedRNN, from_keras, to_keras
from tests.helpers import assert_same_function, randomize, snapshot

OPTIONS = {
    "default": {},
    "cumulative": {"momentum": None, "unbiased_variance": True},
    "zero_debias": {"zero_debias": True, "momentum": 0.9, "epsilon": 1e-5},
    "ghosts": {"virtual_batch_size": 4, "center": False, "gamma_regularizer": "l2"},
    "renorm": {"renorm": True, "renorm_clipping": {"rmax": 3.0}, "scale": False},
    "frozen": {"trainable": False},
}


def sequential(norm):
    return keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3), norm, keras.layers.Flatten()])


def functional(norm):
    inputs = keras.Input((8,), name="in")
    shared = norm(keras.layers.Dense(4)(inputs))
    return keras.Model(inputs, {"sum": keras.layers.Add()([shared, norm(keras.layers.Dense(4)(inputs))])})


def nested(norm):
    inside = functional(norm)
    inputs = keras.Input((8,))
    outside = type(norm)()(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, [inside(outside)["sum"], inside(inputs)["sum"]])


class Subclassed(keras.Model):
    def __init__(self, norm):
        super().__init__()
        self.dense, self.norm = keras.layers.Dense(4), norm

    def call(self, inputs):
        return self.norm(self.dense(inputs))

    def get_config(self):
        return {"norm": keras.saving.serialize_keras_object(self.norm)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["norm"]))


def subclassed(norm):
    model = Subclassed(norm)
    model(np.zeros((2, 8), "float32"))
    return model


def kinds(model):
    return {type(layer) for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)}


@pytest.mark.parametrize("make", [sequential, functional, nested], ids=lambda make: make.__name__)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("copy", [True, False])
def test_there_and_back(make, options, copy):
    model = randomize(make(BatchNormalization(name="norm", **options)))
    model.compile("adam", "mse")
    before = snapshot(model)
    theirs = to_keras(model, copy=copy)
    assert kinds(theirs) == {keras.layers.BatchNormalization}
    assert_same_function(model, theirs, tolerance=1e-6)
    ours = from_keras(theirs, copy=copy)
    assert kinds(ours) == {BatchNormalization}
    assert_same_function(model, ours, tolerance=0)
    assert snapshot(model) == before
    assert theirs.compiled
    assert [layer.name for layer in theirs.layers] == [layer.name for layer in model.layers]
    assert [layer.trainable for layer in theirs.layers] == [layer.trainable for layer in model.layers]


def test_what_keras_has_stays():
    model = sequential(BatchNormalization(epsilon=1e-4, momentum=0.8, renorm=True, gamma_constraint="non_neg"))
    config = to_keras(model).layers[1].get_config()
    assert {key: value for key, value in model.layers[1].get_config().items() if key in config} == config


def test_cumulative_average_gets_the_default_momentum():
    assert to_keras(sequential(BatchNormalization(momentum=None))).layers[1].momentum == 0.99


def test_replicas_share_statistics_where_keras_has_that():
    theirs = to_keras(sequential(BatchNormalization(synchronized=True))).layers[1]
    assert theirs.synchronized is (keras.backend.backend() == "tensorflow")


def test_subclassed_models():
    model = randomize(subclassed(BatchNormalization(name="norm")))
    theirs = to_keras(model)
    assert kinds(theirs) == {keras.layers.BatchNormalization}
    inputs = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    assert_same_function(model, theirs, inputs, tolerance=1e-6)


def test_inside_another_layer():
    norm = BatchNormalization(name="norm")
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.TimeDistributed(norm, name="each")])
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"'each' \(TimeDistributed\) holds 'norm'"):
        to_keras(model)


RECURRENT = {
    "alone": lambda layer: layer,
    "both directions": keras.layers.Bidirectional,
    "every step": lambda layer: keras.layers.TimeDistributed(keras.layers.Bidirectional(layer)),
}


@pytest.mark.parametrize("norm", [None, keras.layers.BatchNormalization()], ids=["kerasbn's", "Keras's"])
@pytest.mark.parametrize("place", RECURRENT)
def test_normalized_recurrent_layers(place, norm):
    layer = RECURRENT[place](BatchNormalizedRNN(keras.layers.GRU(4, name="rnn"), norm))
    shape = (2, 6, 5) if place == "every step" else (6, 5)
    model = randomize(keras.Sequential([keras.Input(shape), layer, BatchNormalization(), keras.layers.Dense(2)]))
    before = snapshot(model)
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"recurrent layer.*to_keras\(kerasbn.fold\(model\)\)"):
        to_keras(model)
    assert snapshot(model) == before
    theirs = to_keras(kerasbn.fold(model))
    assert_same_function(model, theirs, tolerance=1e-4)
    assert not any(type(each).__module__.startswith("kerasbn") for each in theirs._flatten_layers())


def test_recurrent_layers_stay_as_they_are_on_the_way_back():
    inside = keras.layers.Bidirectional(BatchNormalizedRNN(keras.layers.GRU(4), keras.layers.BatchNormalization()))
    network = [keras.Input((6, 5)), keras.layers.LSTM(5, return_sequences=True), inside]
    model = randomize(keras.Sequential([*network, keras.layers.BatchNormalization()]))
    ours = from_keras(model)
    assert_same_function(model, ours, tolerance=1e-6)
    assert [type(layer) for layer in ours.layers[:2]] == [type(layer) for layer in model.layers[:2]]
    assert type(ours.layers[2]) is BatchNormalization
    assert type(ours.layers[1].forward_layer.norms[0]) is keras.layers.BatchNormalization


def test_what_kerasbn_does_not_take_is_set_right_on_the_layer():
    model = sequential(keras.layers.BatchNormalization(epsilon=-1e-3, name="norm"))
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"'norm' cannot be made anew.*`epsilon` must be"):
        from_keras(model)
    model.get_layer("norm").epsilon = 1e-3
    assert_same_function(model, from_keras(model))


@pytest.mark.parametrize("epsilon", [1e-3, 0.0])
def test_trains_alike_after_from_keras(epsilon):
    theirs = randomize(sequential(keras.layers.BatchNormalization(epsilon=epsilon)))
    ours = from_keras(theirs)
    x, y = np.random.default_rng(0).normal(size=(8, 6, 6, 3)), np.zeros((8, 64))
    for model in (theirs, ours):
        model.compile(keras.optimizers.SGD(1e-3), "mse")
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_loads_without_kerasbn(tmp_path):
    to_keras(randomize(sequential(BatchNormalization(zero_debias=True)))).save(tmp_path / "model.keras")
    code = "import sys, keras; keras.models.load_model(sys.argv[1]); assert 'kerasbn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.keras")], check=True, capture_output=True)
