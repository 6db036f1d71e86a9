"""Learning rates and weight decay by weight, and L2 for kernels that have none."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras.optimizers import schedules

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, sequential

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(96, 12)).astype("float32")
Y = GENERATOR.integers(0, 3, 96)
UNCHANGED = {"position": "none", "dropout": "none"}


def _two_heads(optimizer):
    """A network whose halves do not know of each other, so that each learns as it would alone."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    halves = [L.Dense(3, name=name)(L.Dense(4, "tanh", name=f"{name}_ahead")(inputs)) for name in ("a", "b")]
    model = keras.Model(inputs, halves)
    model.compile(optimizer, ["mse", "mse"])
    return model


def _trained(model, times=2):
    targets = np.eye(3, dtype="float32")[Y]
    for _ in range(times):
        for start in (0, 32, 64):
            batch = slice(start, start + 32)
            model.train_on_batch(X[batch], [targets[batch], targets[batch]])
    return model


def _weights(model, half):
    return [weight.numpy() for layer in model.layers if layer.name.startswith(half) for weight in layer.weights]


OPTIMIZERS = {
    name: kind
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type) and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
}


def _of_kind(name, rate=0.01, **kwargs):
    return OPTIMIZERS[name](learning_rate=rate, weight_decay=0.1, **kwargs)


CONFIGURED = {
    **{name: lambda rate, name=name: _of_kind(name, rate) for name in OPTIMIZERS},
    "momentum": lambda rate: _of_kind("SGD", rate, momentum=0.9, nesterov=True),
    "averages": lambda rate: _of_kind("AdamW", rate, use_ema=True, ema_overwrite_frequency=4),
    "accumulation": lambda rate: _of_kind("AdamW", rate, gradient_accumulation_steps=2),
    "schedule": lambda rate: _of_kind("Adam", schedules.ExponentialDecay(rate, 2, 0.5)),
    "loss scale": lambda rate: keras.optimizers.LossScaleOptimizer(_of_kind("AdamW", rate), 4.0),
}


@pytest.mark.parametrize("optimizer", CONFIGURED)
def test_each_layer_learns_as_with_an_optimizer_of_its_rate(optimizer):
    make = CONFIGURED[optimizer]
    result = kerasbn.rewrite(_two_heads(make(0.01)), rates=[("a*", 0.25)], **UNCHANGED)
    assert isinstance(result.optimizer, type(make(0.01)))
    _trained(result)
    for half, rate in (("a", 0.0025), ("b", 0.01)):
        alone = _weights(_trained(_two_heads(make(rate))), half)
        for ours, theirs in zip(_weights(result, half), alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["AdamW", "Adafactor", "averages", "accumulation", "schedule", "loss scale"])
@pytest.mark.parametrize("steps", [0, 1], ids=["fresh", "trained"])
def test_a_saved_model_trains_on_with_its_rates(optimizer, steps, tmp_path):
    source = _trained(_two_heads(CONFIGURED[optimizer](0.01)), steps)
    result = kerasbn.rewrite(source, rates=[("a*", 0.25), ("*", 2)], decay_exclude=["b*"], **UNCHANGED)
    _trained(result, 1)  # an odd number of batches: in the middle of what is accumulated
    result.save(tmp_path / "model.keras")
    loaded = kerasbn.load(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == result.optimizer.get_config()
    for model in (result, loaded):
        _trained(model)
    for ours, theirs in zip(loaded.variables, result.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rates_and_exclusions_live_on_when_a_model_is_rewritten_again():
    source = _two_heads(keras.optimizers.AdamW(0.01))
    first = kerasbn.rewrite(source, rates=[("a", 0.5)], decay_exclude=("bias",), **UNCHANGED)
    second = kerasbn.rewrite(first, norm=keras.layers.BatchNormalization())
    names = [f"{layer.name}/{weight.name}" for layer in second.layers for weight in layer.trainable_weights]
    by_path = dict(zip(names, zip(second.optimizer.rates, second.optimizer.decays, strict=True), strict=True))
    assert by_path["a/kernel"] == (0.5, True)
    assert by_path["a/bias"] == (0.5, False)
    assert by_path["b/kernel"] == (1.0, True)
    assert by_path["a_ahead_bn/beta"] == by_path["a_ahead_bn/gamma"] == (1.0, False)


def _network(optimizer, **kwargs):
    layers = [L.Dense(8, name="a", **kwargs), L.BatchNormalization(name="old_bn"), L.ReLU()]
    model = sequential(*layers, L.Dense(8, "relu", name="b"))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def _decayed(model):
    """The names of the weights that a step without gradients makes smaller."""
    model.optimizer.build(model.trainable_variables)
    for weight in model.trainable_variables:
        weight.assign(np.ones(weight.shape))
    model.optimizer.apply([keras.ops.zeros(weight.shape) for weight in model.trainable_variables])
    return {
        f"{layer.name}/{weight.name}"
        for layer in model.layers
        for weight in layer.trainable_variables
        if np.all(weight.numpy() < 1)
    }


EXCLUSIONS = {
    "what is inserted": ((), {"a/kernel", "a/bias", "old_bn/gamma", "old_bn/beta", "b/kernel"}),
    "normalization": (("normalization",), {"a/kernel", "a/bias", "b/kernel"}),
    "bias": (("bias",), {"a/kernel", "old_bn/gamma", "old_bn/beta", "b/kernel"}),
    "both": (("normalization", "bias"), {"a/kernel", "b/kernel"}),
    "a glob": (("a",), {"old_bn/gamma", "old_bn/beta", "b/kernel"}),
}


@pytest.mark.parametrize("exclusions", EXCLUSIONS)
def test_what_weight_decay_leaves_out(exclusions):
    chosen, expected = EXCLUSIONS[exclusions]
    source = _network(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    plan = kerasbn.plan(source, rules=[("b", "before")], decay_exclude=chosen)
    assert "leaves out the weights of the normalizations that are inserted" in " ".join(plan.notes)
    head = source.layers[-1].name
    of_head = {f"{head}/kernel"} | (set() if "bias" in chosen else {f"{head}/bias"})
    assert _decayed(plan.apply()) == expected | of_head


def test_exclusions_add_to_those_of_the_user():
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    result = kerasbn.rewrite(_network(optimizer), decay_exclude=("normalization",))
    assert {name.rpartition("/")[2] for name in _decayed(result)} == {"bias"}


WITH_KERNELS = {
    "dense": (L.Dense(4, name="a"), 1),
    "regularized": (L.Dense(4, name="a", kernel_regularizer="l1"), 0),
    "separable": (L.SeparableConv1D(4, 3, name="a"), 2),
    "both ways": (L.Bidirectional(L.GRU(4, return_sequences=True), name="a"), 4),
    "every step": (L.TimeDistributed(L.Dense(4), name="a"), 1),
}


@pytest.mark.parametrize("kind", WITH_KERNELS)
def test_kernels_without_a_regularizer_get_l2(kind):
    layer, count = WITH_KERNELS[kind]
    layer = type(layer).from_config(layer.get_config())
    source = keras.Sequential([keras.Input((6, 4)), layer])
    plan = kerasbn.plan(source, l2=0.5, recurrent="none", **UNCHANGED)
    assert f"L2(0.5) is added to the {count} kernels" in " ".join(plan.notes)
    result = plan.apply()
    added = [w for w in result.trainable_variables if isinstance(w.regularizer, keras.regularizers.L2)]
    assert len(added) == count
    assert all(weight.name.endswith("kernel") and weight.regularizer.l2 == 0.5 for weight in added)
    assert_same_function(source, result, GENERATOR.normal(size=(3, 6, 4)))


def test_l2_is_left_alone_where_a_regularizer_is_no_argument():
    source = _network("sgd")
    source.get_layer("a").kernel.regularizer = keras.regularizers.OrthogonalRegularizer(0.1)
    plan = kerasbn.plan(source, l2=1e-4, **UNCHANGED)
    assert ("a#0", Reason.REGULARIZER) in [(skip.site, skip.reason) for skip in plan.skips]
    assert "added to the 2 kernels" in " ".join(plan.notes)


class OfMyOwn(keras.optimizers.SGD):
    """An optimizer that is none of Keras's."""


BAD = {
    "a number": ("adam", {"rates": [("a", 0)]}, "it must be a positive number"),
    "no pairs": ("adam", {"rates": {"a": 1.0}}, "rates must be pairs"),
    "nothing": ("adam", {"rates": [("conv*", 0.1)]}, r"'conv\*', which matches no layer"),
    "nothing to exclude": ("adamw", {"decay_exclude": ["norm"]}, "Kinds are 'normalization' and 'bias'"),
    "one word": ("adamw", {"decay_exclude": "bias"}, "must be kinds and globs"),
    "no decay": ("adam", {"decay_exclude": ["bias"]}, "has no weight decay"),
    "another's": (OfMyOwn, {"rates": [("a", 0.1)]}, "none of Keras's own"),
    "l2": ("adam", {"l2": -1.0}, "l2 is -1.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_for(case):
    optimizer, options, message = BAD[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        kerasbn.plan(_network(optimizer if isinstance(optimizer, str) else optimizer()), **options)


@pytest.mark.parametrize("options", [{"rates": [("a", 0.1)]}, {"decay_exclude": ["bias"]}])
def test_a_model_that_was_never_compiled_has_no_rates(options):
    with pytest.raises(kerasbn.OptionError, match="was never compiled"):
        kerasbn.plan(sequential(L.Dense(8, name="a")), **options)


def test_what_is_frozen_later_is_named():
    result = kerasbn.rewrite(_network("adamw"), rates=[("a", 0.1)])
    result.get_layer("a").trainable = False
    with pytest.raises(kerasbn.OptionError, match="Freeze and thaw layers before"):
        result.fit(X, Y, verbose=0)
