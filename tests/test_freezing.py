"""Batch normalization, frozen in place and thawed again."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
import kerasbn.layers
from kerasbn import _keras
from tests.helpers import inference, randomize

X = np.random.default_rng(0).normal(2, 3, (24, 6, 6, 3)).astype("float32")
Y = np.zeros((24, 2), "float32")


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.bn = L.Dense(4), L.BatchNormalization(name="bn")

    def call(self, x, training=None):
        return self.bn(self.dense(x), training=training)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block, self.bn, self.head = Block(name="block"), L.BatchNormalization(name="last_bn"), L.Dense(2)

    def call(self, x, training=None):
        return self.head(keras.ops.mean(self.bn(self.block(x, training=training), training=training), [1, 2]))


class OwnCall(L.BatchNormalization):
    """A batch normalization of the user's own."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask)


def _flat(norm=L.BatchNormalization):
    chain = [L.Conv2D(4, 3), norm(name="a_bn"), L.ReLU(), L.Conv2D(4, 3), norm(name="b_bn")]
    return keras.Sequential([keras.Input((6, 6, 3)), *chain, L.GlobalAveragePooling2D(), L.Dense(2)])


def _nested():
    inner = keras.Sequential([keras.Input((6, 6, 4)), L.BatchNormalization(name="bn"), L.ReLU()], name="inner")
    inputs = keras.Input((6, 6, 3))
    x = inner(inner(L.Dense(4)(inputs)))  # shared as well
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def _wrapped():
    chain = [L.TimeDistributed(L.BatchNormalization(name="bn"), name="steps"), Block(name="block")]
    return keras.Sequential([keras.Input((6, 6, 3)), *chain, L.Flatten(), L.Dense(2)])


def _subclassed():
    model = Subclassed()
    model(X)
    return model


# A model, and the paths of its batch normalizations.
MODELS = {
    "Keras's": (_flat, ["a_bn", "b_bn"]),
    "kerasbn's": (lambda: _flat(kerasbn.layers.BatchNormalization), ["a_bn", "b_bn"]),
    "debiased": (
        lambda: _flat(lambda name: kerasbn.layers.BatchNormalization(name=name, zero_debias=True)),
        ["a_bn", "b_bn"],
    ),
    "nested and shared": (_nested, ["inner/bn"]),
    "wrapped and held": (_wrapped, ["steps", "block/bn"]),
    "subclassed": (_subclassed, ["block/bn", "last_bn"]),
}


def _norms(model):
    return [layer for layer in _keras.sublayers(model) if isinstance(layer, L.BatchNormalization)]


def _state(model):
    """All that says how a batch normalization trains."""
    return [
        (
            type(norm),
            norm.trainable,
            [weight.trainable for weight in norm.weights],
            norm.get_config(),
            sorted(vars(norm)),
        )
        for norm in _norms(model)
    ]


def _values(norm):
    return {weight.name: weight.numpy() for weight in norm.weights}


def _trained(model):
    model.compile(keras.optimizers.SGD(1e-3, clipnorm=1.0), "mse")
    losses = model.fit(X, Y, batch_size=8, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))


def _in_training(model):
    return keras.ops.convert_to_numpy(model(X, training=True))


@pytest.mark.parametrize("what", ["all", "statistics"])
@pytest.mark.parametrize("case", MODELS)
def test_what_is_frozen_stays_bit_for_bit(case, what):
    make, paths = MODELS[case]
    model = randomize(make())
    before, state = [_values(norm) for norm in _norms(model)], _state(model)
    frozen = kerasbn.freeze(model, what=what)
    assert sorted(frozen.layers) == sorted(paths)
    np.testing.assert_array_equal(_in_training(model), inference(model, X)[0])
    _trained(model)
    for norm, values in zip(_norms(model), before, strict=True):
        for name, value in _values(norm).items():
            trains = what == "statistics" and name in ("gamma", "beta")
            assert np.array_equal(value, values[name]) != trains, name
    frozen.thaw()
    assert _state(model) == state
    _trained(model)
    for norm, values in zip(_norms(model), before, strict=True):
        for name in ("gamma", "moving_mean", "moving_variance"):  # a beta ahead of another one need not move
            assert not np.array_equal(getattr(norm, name), values[name]), name


@pytest.mark.parametrize("what", ["all", "statistics"])
@pytest.mark.parametrize("case", ["Keras's", "kerasbn's", "nested and shared"])
def test_a_saved_file_is_frozen_too(case, what, tmp_path):
    model = randomize(MODELS[case][0]())
    kerasbn.freeze(model, what=what)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    copied = kerasbn.rewrite(model, position="none", dropout="none")
    for again in (loaded, copied):
        before = [_values(norm) for norm in _norms(again)]
        np.testing.assert_array_equal(_in_training(again), inference(model, X)[0])
        _trained(again)
        for norm, values in zip(_norms(again), before, strict=True):
            assert np.array_equal(norm.moving_mean, values["moving_mean"])


def test_it_takes_effect_in_a_model_that_was_trained_before():
    model = randomize(_flat())
    _trained(model)
    before = [_values(norm) for norm in _norms(model)]
    frozen = kerasbn.freeze(model, what="statistics")
    model.fit(X, Y, batch_size=8, verbose=0)
    for norm, values in zip(_norms(model), before, strict=True):
        assert np.array_equal(norm.moving_mean, values["moving_mean"])
    frozen.thaw()
    model.fit(X, Y, batch_size=8, verbose=0)
    for norm, values in zip(_norms(model), before, strict=True):
        assert not np.array_equal(norm.moving_mean, values["moving_mean"])


def test_flags_that_were_set_before_are_restored():
    model = randomize(_flat())
    first, second = _norms(model)
    first.trainable = False
    second.gamma.trainable = False
    state = _state(model)
    inner = kerasbn.freeze(model, "a_bn", what="statistics")
    outer = kerasbn.freeze(model)
    outer.thaw()
    inner.thaw()
    assert _state(model) == state


def test_a_glob_chooses():
    model = randomize(_flat())
    assert kerasbn.freeze(model, "b_*").layers == ("b_bn",)
    assert [norm.trainable for norm in _norms(model)] == [True, False]


def test_calls_with_training_true_are_named():
    inputs = keras.Input((6, 6, 3))
    x = L.BatchNormalization(name="always")(inputs, training=True)
    model = randomize(keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(L.BatchNormalization(name="bn")(x)))))
    (note,) = kerasbn.freeze(model).notes
    assert "training=True in the graph: 'always'." in note
    assert not kerasbn.freeze(model, "bn").notes


def test_it_folds():
    model = randomize(_flat())
    kerasbn.freeze(model, what="statistics")
    assert not _norms(kerasbn.fold(model))


def test_keras_has_no_layer_for_it():
    model = randomize(_flat())
    frozen = kerasbn.freeze(model, what="statistics")
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"'a_bn' has frozen statistics.*what='all'"):
        kerasbn.layers.to_keras(model)
    frozen.thaw()
    kerasbn.freeze(model, what="all")
    assert [type(norm).__module__.startswith("keras.") for norm in _norms(kerasbn.layers.to_keras(model))] == [
        True,
        True,
    ]


# What is refused, and what the message says.
REFUSED = {
    "another word": (_flat, {"what": "gamma"}, kerasbn.OptionError, "'all' or 'statistics'"),
    "no such layer": (_flat, {"glob": "c_*"}, kerasbn.OptionError, "'c_\\*', which matches no batch normalization"),
    "of the user's own": (
        *(lambda: _flat(OwnCall), {"what": "statistics"}),
        *(kerasbn.UnsupportedModelError, "Layer 'a_bn' is a OwnCall.*what='all'"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(case):
    make, options, error, message = REFUSED[case]
    model = randomize(make())
    state = _state(model)
    with pytest.raises(error, match=message):
        kerasbn.freeze(model, **options)
    assert _state(model) == state


def test_what_the_refusal_advises():
    model = randomize(_flat(OwnCall))
    before = [_values(norm) for norm in _norms(model)]
    kerasbn.freeze(model)
    _trained(model)
    for norm, values in zip(_norms(model), before, strict=True):
        assert np.array_equal(norm.moving_mean, values["moving_mean"])
