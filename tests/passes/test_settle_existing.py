"""Normalization that is there already is replaced, or taken out: what goes along, what is fitted, what stays."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, inference, random_inputs, randomize, sequential, snapshot

GHOST = kerasbn.layers.BatchNormalization(virtual_batch_size=8)
SYNCHRONIZED = L.BatchNormalization(momentum=0.9, synchronized=keras.backend.backend() == "tensorflow")
OTHERS = [L.GroupNormalization(8), L.LayerNormalization(), L.RMSNormalization()]


def in_a_block(norm=L.BatchNormalization):
    return sequential(L.Dense(12, name="a"), norm(name="bn"), L.ReLU())


def shared():
    given = keras.Input((6, 8))
    dense, norm = L.Dense(8), L.BatchNormalization(name="bn")
    first = norm(dense(given))
    return keras.Model(given, L.Dense(3)(L.Add()([first, norm(dense(L.ReLU()(first)))])))


def every_step():
    norm = L.TimeDistributed(L.BatchNormalization(name="inside"), name="bn")
    return sequential(L.TimeDistributed(L.Dense(8)), norm, L.Flatten(), L.Dense(2), shape=(5, 6, 4))


def inside():
    inner = keras.Sequential([keras.Input((8,)), L.Dense(16), L.BatchNormalization(name="bn")], name="inner")
    given, other = keras.Input((8,)), keras.Input((8,))
    return keras.Model([given, other], L.Dense(3)(L.Add()([inner(given), inner(other, training=False)])))


def masked():
    given = keras.Input((7, 4))
    mask = keras.ops.any(given > 0, -1)
    return keras.Model(given, L.Dense(2)(L.BatchNormalization(name="bn")(given, mask=mask)))


def channels_first():
    return sequential(L.BatchNormalization(axis=1, name="bn"), L.ReLU(), L.Flatten(), L.Dense(2), shape=(8, 6))


def at_the_end():
    return sequential(L.Dense(8), L.BatchNormalization(name="bn", scale=False, center=False))


def in_half_precision():
    norm = L.BatchNormalization(name="bn", dtype="mixed_float16")
    return sequential(L.Dense(8, dtype="mixed_float16"), norm, L.Dense(2, dtype="float32"))


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.bn = L.Dense(8, name="dense"), L.BatchNormalization(name="bn")

    def build(self, shape):
        self.dense.build(shape)
        self.bn.build((None, 8))

    def call(self, inputs, training=None):
        return keras.ops.relu(self.bn(self.dense(inputs), training=training))


def opened():
    return sequential(Block(name="block"), L.Dense(2))


MODELS = [in_a_block, shared, every_step, inside, masked, channels_first, at_the_end, in_half_precision, opened]


def plan_of(model, **options):
    return kerasbn.plan(model, position="none", dropout="none", **{"existing": "replace", **options})


def replaced(plan):
    return [edit.site for edit in plan.edits if edit.kind == "replace"]


def norm_of(model, path="bn"):
    layers = [layer for layer in model._flatten_layers() if layer.name == path]
    return layers[0].layer if isinstance(layers[0], L.TimeDistributed) else layers[0]


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("norm", [None, GHOST, SYNCHRONIZED, L.BatchNormalization(momentum=0.5)])
def test_another_batch_normalization_computes_the_same(build, norm):
    model = randomize(build())
    before = snapshot(model)
    plan = plan_of(model, norm=norm)
    result = plan.apply()
    assert plan.exact
    assert replaced(plan)
    assert isinstance(norm_of(result), L.BatchNormalization if norm is None else type(norm))
    assert_same_function(model, result, tolerance=1e-3 if build is in_half_precision else 1e-6)
    assert snapshot(model) == before


@pytest.mark.parametrize("build", [build for build in MODELS if build not in (at_the_end, in_half_precision)])
def test_gamma_takes_in_another_epsilon(build):
    model = randomize(build())
    plan = plan_of(model, norm=L.BatchNormalization(epsilon=0.1))
    assert all("gamma takes in the epsilon of 0.1 instead of 0.001" in edit.detail for edit in plan.edits)
    result = plan.apply()
    assert norm_of(result).epsilon == 0.1
    assert_same_function(model, result, tolerance=1e-6)


@pytest.mark.parametrize("build", [build for build in MODELS if build is not at_the_end])
def test_there_and_back_again_bit_for_bit(build):
    model = randomize(build())
    ours = plan_of(model, norm=GHOST).apply()
    back = plan_of(ours, norm=L.BatchNormalization()).apply()
    assert norm_of(ours).virtual_batch_size == 8
    assert type(norm_of(back)) is L.BatchNormalization
    for one, other in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_optimizers_have_learned_goes_along():
    model = randomize(in_a_block())
    model.compile("adam", "mse")
    model.fit(np.ones((8, 12), "float32"), np.ones((8, 3), "float32"), verbose=0)
    result = plan_of(model).apply()
    for one, other in zip(model.optimizer.variables, result.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    other = plan_of(model, norm=L.LayerNormalization())
    assert "starts afresh on those of bn" in other.notes[0]
    slots = {slot.path: slot for slot in other.apply().optimizer.variables}
    kept = [slot for slot in model.optimizer.variables if "bn" not in slot.path]
    assert len(kept) >= 8
    for slot in kept:
        np.testing.assert_array_equal(slot, slots[slot.path])


def test_what_is_set_on_the_layer_stays():
    model = sequential(L.Dense(8), L.BatchNormalization(name="bn", gamma_regularizer="l2", beta_constraint="non_neg"))
    norm_of(model).trainable = False
    for norm in (None, L.GroupNormalization(4)):
        result = norm_of(plan_of(model, norm=norm).apply())
        assert not result.trainable
        assert isinstance(result.gamma_regularizer, keras.regularizers.L2)
        assert isinstance(result.beta.constraint, keras.constraints.NonNeg)


def test_regularizers_are_scaled_all_the_same():
    model = sequential(L.Dense(8), L.BatchNormalization(name="bn", gamma_regularizer=keras.regularizers.L2(0.5)))
    model.compile("sgd", "mse")
    result = plan_of(model, weight_decay_scale=0.5).apply()
    assert float(norm_of(result).gamma_regularizer.l2) == 0.25
    plan = plan_of(model, weight_decay_scale=0.5, norm=L.LayerNormalization())
    assert Reason.REGULARIZER in [skip.reason for skip in plan.skips]


def test_frozen_statistics_stay_frozen():
    model = randomize(in_a_block())
    kerasbn.freeze(model, what="statistics")
    assert norm_of(plan_of(model, norm=GHOST).apply()).frozen_statistics
    (skip,) = [skip for skip in plan_of(model, norm=L.BatchNormalization()).skips if skip.site == "bn#0"]
    assert skip.reason is Reason.NORM
    assert "frozen statistics" in skip.detail


def test_averages_go_on_from_the_statistics():
    model = randomize(in_a_block())
    result = plan_of(model, norm=kerasbn.layers.BatchNormalization(momentum=None)).apply()
    np.testing.assert_allclose(norm_of(result).seen_batches, 100, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "norm"),
    [
        (build, norm)
        for build in MODELS
        for norm in OTHERS
        if not (build is channels_first and isinstance(norm, L.RMSNormalization))
    ],
)
def test_another_kind_is_fitted(build, norm):
    model = randomize(build())
    inputs = random_inputs(model, batch=40)
    plain = plan_of(model, norm=norm)
    fitted = plan_of(model, norm=norm, data=inputs)
    assert replaced(plain) == replaced(fitted)
    assert replaced(fitted)
    assert not plain.exact
    assert plain.moved is None
    assert "outputs change" in plain.notes[-1]
    assert str(fitted.moved) in fitted.notes
    assert str(fitted.moved) == fitted.notes[-1]
    result = fitted.apply()
    assert isinstance(norm_of(result), type(norm))
    wanted, got = (np.concatenate([each.ravel() for each in inference(of, inputs)]) for of in (model, result))
    wanted, got = wanted.astype("float64"), got.astype("float64")
    moved = np.sqrt(np.sum((got - wanted) ** 2) / np.sum(wanted**2))
    np.testing.assert_allclose(moved, fitted.moved.outputs, rtol=1e-2)


def test_the_fit_is_that_of_least_squares():
    model = randomize(keras.Sequential([keras.Input((6,)), L.BatchNormalization(name="bn")]))
    inputs = random_inputs(model, batch=50)
    norm = L.LayerNormalization()
    result = plan_of(model, norm=norm, data=inputs).apply()
    normalized, wanted = inference(keras.Sequential([norm]), inputs)[0], inference(model, inputs)[0]
    for channel in range(6):
        terms = np.stack([normalized[:, channel], np.ones(50)], 1)
        expected = np.linalg.lstsq(terms, wanted[:, channel], rcond=None)[0]
        got = [norm_of(result).gamma[channel], norm_of(result).beta[channel]]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_each_example_by_itself_becomes_a_batch_normalization():
    model = randomize(in_a_block(L.LayerNormalization))
    inputs = random_inputs(model, batch=60)
    plan = plan_of(model, data=inputs)
    result = plan.apply()
    ahead = inference(keras.Model(model.inputs, model.layers[0].output), inputs)[0]
    np.testing.assert_allclose(norm_of(result).moving_mean, ahead.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm_of(result).moving_variance, ahead.var(0), rtol=1e-4)
    without = inference(plan_of(model).apply(), inputs)[0]
    wanted, got = inference(model, inputs)[0], inference(result, inputs)[0]
    assert np.linalg.norm(got - wanted) < 0.6 * np.linalg.norm(without - wanted)


def test_data_that_gives_its_batches_once():
    model = randomize(in_a_block())
    inputs = random_inputs(model, batch=40)
    expected = plan_of(model, norm=L.LayerNormalization(), data=inputs).apply()
    plan = plan_of(model, norm=L.LayerNormalization(), data=iter([inputs[:20], inputs[20:]]))
    assert "gives its batches once" in plan.notes[-1]
    assert_same_function(expected, plan.apply(), tolerance=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(12, 6), (8, 8), (7, 7), (11, 1), (64, 8)])
def test_groups_are_the_largest_divisor(channels, groups):
    model = sequential(L.Dense(channels), L.BatchNormalization(name="bn"))
    assert norm_of(plan_of(model, norm=L.GroupNormalization(8)).apply()).groups == groups


class Odd(L.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training, mask) * 2


STAYING = {
    "alike": (lambda: in_a_block(), L.BatchNormalization(), Reason.ALIKE, "like it already"),
    "unknown": (lambda: in_a_block(Odd), None, Reason.UNKNOWN_SUBCLASS, "Odd"),
    "no gamma": (lambda: in_a_block(), L.BatchNormalization(scale=False), Reason.NORM, "has a gamma"),
    "several axes": (
        lambda: sequential(L.LayerNormalization(axis=[1, 2], name="bn"), shape=(4, 6)),
        L.RMSNormalization(),
        Reason.CHANNEL_AXIS,
        "[1, 2]",
    ),
    "an axis ahead": (channels_first, L.RMSNormalization(), Reason.NORM, "cannot normalize it"),  # Keras's fails there
    "unit length": (lambda: in_a_block(L.UnitNormalization), None, Reason.UNIT_LENGTH, "length 1"),
}


@pytest.mark.parametrize(("build", "norm", "reason", "detail"), STAYING.values(), ids=STAYING)
def test_what_stays_has_its_reason(build, norm, reason, detail):
    model = randomize(build())
    plan = plan_of(model, norm=norm)
    (skip,) = [skip for skip in plan.skips if skip.site == "bn#0"]
    assert not plan.edits
    assert skip.reason is reason
    assert detail in skip.detail
    assert_same_function(model, plan.apply(), tolerance=0)


def test_what_is_inside_stays_with_its_reason():
    model = sequential(kerasbn.layers.BatchNormalizedRNN(L.LSTM(4), name="rnn"), shape=(5, 4))
    skips = [skip for skip in plan_of(model).skips if "normalizations inside: 1" in skip.detail]
    assert [(skip.site, skip.reason) for skip in skips] == [("rnn#0", Reason.RECURRENT)]
    plan = plan_of(sequential(Block(name="block"), L.Dense(2)), custom_layers="keep")
    assert "normalizations inside: 1" in " ".join(skip.detail for skip in plan.skips)


def test_rules_say_it_for_some():
    model = sequential(*[each for name in "abc" for each in (L.Dense(8), L.BatchNormalization(name=f"bn_{name}"))])
    plan = kerasbn.plan(model, rules=[("bn_a", "replace"), ("bn_b", "remove")])
    assert [(edit.site, edit.kind) for edit in plan.edits if "bn" in edit.site] == [
        ("bn_a#0", "replace"),
        ("bn_b#0", "remove"),
    ]
    plan = plan_of(model, rules=[("bn_a", "keep"), ("*_b", "skip"), ("*", "after")])
    assert replaced(plan) == ["bn_c#0"]
    assert [skip.site for skip in plan.skips if skip.reason is Reason.RULE and "bn" in skip.site] == [
        "bn_a#0",
        "bn_b#0",
    ]


@pytest.mark.parametrize("rule", [("dense", "replace"), ("nothing", "remove")])
def test_a_rule_for_no_normalization_is_refused(rule):
    model = sequential(L.Dense(8, name="dense"), L.BatchNormalization(name="bn"))
    with pytest.raises(kerasbn.OptionError, match=rule[0]):
        kerasbn.plan(model, rules=[rule])


def test_existing_and_fold_exclude_each_other():
    with pytest.raises(kerasbn.OptionError, match="existing"):
        kerasbn.plan(in_a_block(), fold=True, existing="remove")


@pytest.mark.parametrize("build", MODELS)
def test_removed_it_is_the_identity(build):
    model = randomize(build())
    plan = plan_of(model, existing="remove")
    assert not plan.exact
    assert "trained anew" in plan.notes[-1]
    result = plan.apply()
    assert not [layer for layer in result._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    assert [tensor.shape for tensor in result.outputs] == [tensor.shape for tensor in model.outputs]
    as_identity = keras.models.clone_model(model) if build is not opened else None
    if as_identity is not None:
        as_identity.set_weights(model.get_weights())
        for layer in as_identity._flatten_layers():
            if isinstance(layer, L.BatchNormalization):
                kinds = {"moving_mean": 0, "moving_variance": 1 - layer.epsilon, "gamma": 1, "beta": 0}
                for variable in layer.weights:
                    variable.assign(np.full(variable.shape, kinds[variable.name]))
        tolerance = 1e-2 if build is in_half_precision else 1e-5
        assert_same_function(as_identity, result, random_inputs(model), tolerance=tolerance)


def test_where_one_is_removed_another_is_inserted():
    plan = kerasbn.plan(in_a_block(), existing="remove")
    assert [(edit.site, edit.kind) for edit in plan.edits] == [("a#0", "insert"), ("bn#0", "remove")]
    result = plan.apply()
    assert [type(layer).__name__ for layer in result.layers] == ["Dense", "BatchNormalization", "ReLU", "Dense"]


def test_a_network_without_its_own_gets_it_at_the_same_places():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None)
    plan = kerasbn.plan(model, existing="remove")
    assert "53 normalized now" in plan.outcome
    sites = {edit.site.partition("#")[0] for edit in plan.edits if edit.kind == "insert"}
    assert sites == {layer.name for layer in model.layers if isinstance(layer, L.Conv2D)}


def test_one_that_is_replaced_counts_as_one():
    plan = kerasbn.plan(in_a_block(), existing="replace", norm=L.GroupNormalization(4))
    assert [(edit.site, edit.kind) for edit in plan.edits] == [("bn#0", "replace")]
    assert "1 normalized already" in plan.outcome


def test_one_with_renorm_trains_on_from_the_statistics_that_it_took_over():
    model = in_a_block()
    (norm,) = (layer for layer in model.layers if layer.name == "bn")
    norm.moving_variance.assign(np.full(12, 1e-2))
    after = L.BatchNormalization(renorm=True, epsilon=0.1, momentum=1.0)
    result = plan_of(model, norm=after).apply()
    result(random_inputs(model), training=True)
    np.testing.assert_allclose(result.get_layer("bn").moving_variance, 1e-2, rtol=1e-4)


@pytest.mark.parametrize("norm", [None, L.GroupNormalization(4)])
def test_saved_and_loaded_and_trained(norm, tmp_path):
    model = randomize(in_a_block())
    model.compile("sgd", "mse")
    result = plan_of(model, norm=norm, data=random_inputs(model, batch=20)).apply()
    result.save(tmp_path / "model.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "model.keras"), tolerance=1e-6)
    result.fit(np.ones((8, 12), "float32"), np.ones((8, 3), "float32"), verbose=0)
