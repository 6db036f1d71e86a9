"""Sums of parallel linear branches become one layer: which do, which stay and why, and that nothing else changes."""

import collections

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, inference, random_inputs, randomize, snapshot

BN = L.BatchNormalization
KERNELS = (L.Dense, L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D)


def _model(shape, body, **kwargs):
    """A model of what comes between two activations."""
    inputs = keras.Input(shape, name="in", **kwargs)
    return randomize(keras.Model(inputs, L.ReLU(name="out")(body(L.Activation("tanh", name="tanh")(inputs)))))


def _plan(model, **options):
    return kerasbn.plan(model, position="none", dropout="none", fold=True, **options)


def _counts(model):
    kinds = collections.Counter(type(layer) for layer in model._flatten_layers())
    return sum(kinds[kind] for kind in KERNELS), kinds[BN]


def _assert_merges(model, left=(1, 0), inputs=None):
    before = snapshot(model)
    plan = _plan(model)
    merged = plan.apply()
    assert _counts(merged) == left, str(plan)
    assert_same_function(model, merged, inputs)
    assert snapshot(model) == before
    return merged


def _assert_stays(model, reason):
    plan = _plan(model, copy=False)  # copies of tied layers would not share a weight
    assert [edit for edit in plan.edits if edit.kind == "merge"] == []
    reasons = [skip.reason for skip in plan.skips if not isinstance(_operation_at(model, skip.site), BN)]
    assert reasons == ([] if reason is None else [reason]), str(plan)
    assert_same_function(model, plan.apply())


def _operation_at(model, address):
    name = address.partition("#")[0]
    return next((layer for layer in model._flatten_layers() if layer.name == name), None)


def _chain(x, *layers):
    for layer in layers:
        x = layer(x)
    return x


def _conv(filters, size, **kwargs):
    return L.Conv2D(filters, size, **{"padding": "same", "use_bias": False, **kwargs})


def _depthwise(size, **kwargs):
    return L.DepthwiseConv2D(size, **{"padding": "same", "use_bias": False, **kwargs})


def _repvgg(x):
    return L.Add()([_chain(x, _conv(6, 3), BN()), _chain(x, _conv(6, 1), BN()), BN()(x)])


def _repvgg_downwards(x):
    return L.Add()([_chain(x, _conv(8, 3, strides=2), BN()), _chain(x, _conv(8, 1, strides=2), BN())])


def _mobileone(x):
    depthwise = [_chain(x, _depthwise(3), BN()) for _ in range(4)]
    x = L.ReLU()(L.Add()([*depthwise, _chain(x, _depthwise(1), BN()), BN()(x)]))
    return L.Add()([*(_chain(x, _conv(6, 1), BN()) for _ in range(4)), BN()(x)])


def _qarepvgg(x):
    return BN()(L.Add()([_chain(x, _conv(6, 3), BN()), _conv(6, 1, padding="valid", use_bias=True)(x), x]))


def _repvit(x):
    return BN()(L.Add()([_chain(x, _depthwise(3), BN()), _depthwise(1, use_bias=True)(x), x]))


@keras.saving.register_keras_serializable("kerasbn_tests")
class Scale(L.Layer):
    """The scale of a branch, and a shift if asked for."""

    def __init__(self, shift=False, **kwargs):
        super().__init__(**kwargs)
        self.shift = shift

    def build(self, shape):
        self.scale_weight = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
        self.shift_weight = self.add_weight(name="beta", shape=(shape[-1],)) if self.shift else None

    def call(self, inputs):
        scaled = inputs * self.scale_weight
        return scaled + self.shift_weight if self.shift else scaled

    def get_config(self):
        return {**super().get_config(), "shift": self.shift}


def _repmixer(x):
    mixed = L.Add()([_chain(x, _depthwise(3), BN()), _chain(x, _depthwise(1), BN()), BN()(x)])
    return L.Add()([Scale()(L.Subtract()([mixed, BN()(x)])), x])


def _padded(x, size, pad, **kwargs):
    return _chain(x, L.ZeroPadding2D(pad), _conv(6, size, padding="valid", **kwargs), BN())


IMAGE = (8, 7, 6)
MERGED = {
    "RepVGG": (IMAGE, _repvgg, 1),
    "RepVGG, with strides": (IMAGE, _repvgg_downwards, 1),
    "MobileOne": (IMAGE, _mobileone, 2),
    "QARepVGG": (IMAGE, _qarepvgg, 1),
    "RepViT": (IMAGE, _repvit, 1),
    "FastViT": (IMAGE, _repmixer, 1),
    "its position encoding": (IMAGE, lambda x: L.Add()([_depthwise(7, use_bias=True)(x), x]), 1),
    "padded ahead": (IMAGE, lambda x: L.Add()([_padded(x, 7, 3), _padded(x, 3, 1), BN()(x)]), 1),
    "padded ahead, strides": (
        IMAGE,
        lambda x: L.Add()([_padded(x, 3, 1, strides=2), _chain(x, _conv(6, 1, strides=2, padding="valid"), BN())]),
        1,
    ),
    "identities and scales ahead of zeros": (
        IMAGE,
        lambda x: L.Add()([_padded(L.Dropout(0.5)(x), 3, 1), _padded(L.Rescaling(-3.0)(x), 1, 0)]),
        1,
    ),
    "operations": (IMAGE, lambda x: 2.0 * (_conv(6, 3)(x) + x) - _conv(6, 1)(x) / 3.0 + (0.5 - x), 1),
    "keras.ops": (
        IMAGE,
        lambda x: keras.ops.subtract(_conv(6, 3)(x), keras.ops.multiply(x, np.arange(6.0, dtype="float32"))),
        1,
    ),
    "average": (IMAGE, lambda x: L.Average()([_conv(6, 3)(x), _conv(6, 1)(x), x]), 1),
    "nested sums": (IMAGE, lambda x: L.Add()([L.Add()([_conv(6, 3)(x), x]), L.Add()([_conv(6, 1)(x), x])]), 1),
    "one branch twice": (IMAGE, lambda x: (lambda y: L.Add()([y, y, x]))(_conv(6, 3)(x)), 1),
    "a scale and shift": (IMAGE, lambda x: L.Add()([Scale(shift=True)(_conv(6, 3)(x)), Scale()(x)]), 1),
    "a scale alone": (IMAGE, lambda x: Scale(shift=True)(_chain(x, _conv(6, 3), BN())), 1),
    "factors": (IMAGE, lambda x: -(L.Rescaling(0.3, 0.1)(_conv(6, 3)(x)) / 2.0), 1),
    "a scale of a sum": (IMAGE, lambda x: Scale()(L.Add()([_conv(6, 3)(x), x])), 1),
    "rescaled": (IMAGE, lambda x: L.Add()([_conv(6, 3)(x), L.Rescaling(0.3, 0.1)(x)]), 1),
    "identities": (
        IMAGE,
        lambda x: L.Add()([_chain(x, _conv(6, 3), L.Dropout(0.5), BN()), L.GaussianNoise(1.0)(L.Identity()(x))]),
        1,
    ),
    "a shift ahead of 1x1": (IMAGE, lambda x: L.Add()([_chain(x, BN(), _conv(6, 1)), _conv(6, 3)(x)]), 1),
    "four sizes": (IMAGE, lambda x: L.Add()([_conv(6, size)(x) for size in (3, 7, 1, 5)]), 1),
    "depthwise, four sizes": (IMAGE, lambda x: L.Add()([_depthwise(size)(x) for size in (3, 7, 1, 5)]), 1),
    "rectangular": (IMAGE, lambda x: L.Add()([_conv(6, 3)(x), _conv(6, (1, 3))(x), _conv(6, (3, 1))(x)]), 1),
    "rectangular, none the widest": (IMAGE, lambda x: L.Add()([_conv(6, (3, 5))(x), _conv(6, (5, 3))(x)]), 1),
    "even sizes": (IMAGE, lambda x: L.Add()([_conv(6, 4)(x), _conv(6, 2)(x), _conv(6, 3)(x), x]), 1),
    "even sizes, strides": (
        IMAGE,
        lambda x: L.Add()([_conv(6, 4, strides=2)(x), _conv(6, 3, strides=2)(x), _conv(6, 2, strides=2)(x)]),
        1,
    ),
    "dilation": (IMAGE, lambda x: L.Add()([_conv(6, 3, dilation_rate=2)(x), _conv(6, 1)(x), x]), 1),
    "dilation that fits": (IMAGE, lambda x: L.Add()([_conv(6, 5)(x), _conv(6, 3, dilation_rate=2)(x)]), 1),
    "valid": (IMAGE, lambda x: L.Add()([_conv(6, 3, padding="valid")(x), _depthwise(3, padding="valid")(x)]), 1),
    "depth multiplier": (
        IMAGE,
        lambda x: L.Add()([_depthwise(3, depth_multiplier=2)(x), _depthwise(1, depth_multiplier=2)(x)]),
        1,
    ),
    "groups": (IMAGE, lambda x: L.Add()([_conv(6, 3, groups=3)(x), _conv(6, 1, groups=3)(x), x]), 1),
    "groups in a full one": (IMAGE, lambda x: L.Add()([_conv(6, 3)(x), _conv(6, 1, groups=3)(x), _depthwise(3)(x)]), 1),
    "groups of one": (IMAGE, lambda x: L.Add()([_conv(12, 3, groups=6)(x), _depthwise(1, depth_multiplier=2)(x)]), 1),
    "Dense": ((6,), lambda x: L.Add()([_chain(x, L.Dense(6), BN()), L.Dense(6, use_bias=False)(x), x]), 1),
    "Dense, further axes": ((5, 4, 6), lambda x: L.Add()([L.Dense(6)(x), BN()(x)]), 1),
    "Dense beside Conv2D": (IMAGE, lambda x: L.Add()([L.Dense(8)(x), _conv(8, 3)(x)]), 1),
    "Conv1D": ((9, 6), lambda x: L.Add()([_chain(x, L.Conv1D(6, 3, padding="same"), BN()), L.Conv1D(6, 1)(x), x]), 1),
    "Conv1D, causal": (
        (9, 6),
        lambda x: L.Add()([L.Conv1D(6, 4, padding="causal")(x), L.Conv1D(6, 2, padding="causal")(x), x]),
        1,
    ),
    "DepthwiseConv1D": ((9, 6), lambda x: L.Add()([L.DepthwiseConv1D(3, padding="same")(x), BN()(x)]), 1),
    "Conv3D": (
        (5, 4, 6, 3),
        lambda x: L.Add()([_chain(x, L.Conv3D(3, 3, padding="same"), BN()), L.Conv3D(3, 1)(x), x]),
        1,
    ),
    "open sizes": ((None, None, 6), _repvgg, 1),
    "open sizes, padded ahead": (
        (None, None, 6),
        lambda x: L.Add()([_padded(x, 3, 1, strides=2), _chain(x, _conv(6, 1, strides=2, padding="valid"), BN())]),
        1,
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_becomes_one_layer(name):
    shape, body, left = MERGED[name]
    _assert_merges(_model(shape, body), (left, 0))


@pytest.mark.parametrize("layers", [(L.Conv2D, L.DepthwiseConv2D)[:count] for count in (1, 2)], ids=["full", "groups"])
def test_channels_first(layers):
    def body(x):
        first = {"data_format": "channels_first", "padding": "same"}
        branches = [L.Conv2D(6, size, groups=len(layers), **first) for size in (3, 1)]
        branches += [layer(3, **first) for layer in layers[1:]]
        return L.Add()([*(_chain(x, layer, BN(axis=1)) for layer in branches), BN(axis=1)(x)])

    model = _model((6, 4, 5), body)
    plan = _plan(model)
    assert [edit.detail.partition(" into")[0] for edit in plan.edits if edit.kind == "merge"] == [
        f"{2 + len(layers)} branches"
    ]
    merge = next(edit for edit in plan.edits if edit.kind == "merge")
    (layer,) = (change.layer for change in merge.changes if hasattr(change, "value"))
    image = np.random.default_rng(0).normal(size=(2, 6, 4, 5)).astype("float32")
    assert layer.data_format == "channels_first"
    if keras.backend.backend() != "tensorflow":  # which has no convolutions with the channels first on a CPU
        assert_same_function(model, plan.apply(), image)


def test_the_last_sum_of_those_that_could_merge_is_what_merges():
    model = _model(IMAGE, lambda x: L.Add(name="last")([L.Add(name="first")([_conv(6, 3, name="conv")(x), x]), x]))
    merges = [edit for edit in _plan(model).edits if edit.kind == "merge"]
    assert [(edit.site, edit.detail) for edit in merges] == [("last#0", "3 branches into 'conv'")]


def test_normalizations_on_the_branches_count_as_folded():
    plan = _plan(_model(IMAGE, _qarepvgg))
    assert plan.outcome == "2 batch normalizations: 2 folded."
    assert plan.title.endswith("2 folded, 1 merged, 0 skipped")


def test_merging_is_not_asked_for():
    model = _model(IMAGE, _repvgg)
    plan = _plan(model, merge_branches=False)
    assert {edit.kind for edit in plan.edits} == {"fold"}
    assert _counts(plan.apply()) == (2, 1)
    assert _counts(kerasbn.fold(model, merge_branches=False)) == (2, 1)
    assert _counts(kerasbn.fold(model, merge_branches=True)) == (1, 0)


def test_merging_needs_no_normalization():
    model = _model(IMAGE, lambda x: L.Add()([_conv(6, 3)(x), _conv(6, 1)(x), x]))
    _assert_merges(model)


# Around it


def test_normalization_further_behind_is_folded_into_what_merged():
    def body(x):
        joined = L.Concatenate()([_repvgg(x), L.AveragePooling2D(1)(L.Add()([_depthwise(3)(x), x]))])
        return BN()(joined)

    _assert_merges(_model(IMAGE, body), (2, 0))


def test_normalization_ahead_is_folded_into_what_merged():
    model = _model(IMAGE, lambda x: (lambda y: L.Add()([_conv(6, 3, padding="valid")(y), _crop(y)]))(BN()(x)))
    assert _counts(kerasbn.fold(model)) == (2, 0)
    assert_same_function(model, kerasbn.fold(model))


def _crop(x):
    return _depthwise(3, padding="valid")(x)[..., ::1]


def test_named_outputs_keep_their_names():
    inputs = keras.Input(IMAGE, name="in")
    total = L.Add(name="total")([_conv(6, 3, name="conv")(inputs), inputs])
    model = randomize(keras.Model(inputs, {"total": total}))
    merged = kerasbn.fold(model)
    assert merged.output_names == model.output_names
    assert [layer.name for layer in merged.layers] == ["in", "total"]
    assert_same_function(model, merged)


def test_frozen_layers_stay_frozen_and_dtypes_stay():
    model = _model(IMAGE, _repvgg)
    for layer in model.layers:
        layer.trainable = False
    (conv,) = (layer for layer in _assert_merges(model).layers if isinstance(layer, L.Conv2D))
    assert not conv.trainable
    assert conv.dtype_policy == model.layers[2].dtype_policy


def test_layers_may_be_reused():
    model = _model(IMAGE, _mobileone)
    merged = kerasbn.plan(model, position="none", dropout="none", fold=True, copy=False).apply()
    assert _counts(merged) == (2, 0)
    assert merged.get_layer("tanh") is model.get_layer("tanh")
    assert_same_function(model, merged)


def test_result_saves_and_loads(tmp_path):
    merged = kerasbn.fold(_model(IMAGE, _repmixer))
    merged.save(tmp_path / "merged.keras")
    assert_same_function(merged, keras.models.load_model(tmp_path / "merged.keras"), tolerance=0)


def test_weights_are_read_when_the_plan_is_applied():
    model = _model(IMAGE, _repvgg)
    plan = _plan(model)
    randomize(model, seed=5)
    assert_same_function(model, plan.apply())


def test_compiled_model_that_was_trained():
    model = _model(IMAGE, _repvgg)
    model.compile("adam", "mse")
    images = random_inputs(model)
    model.fit(images, images, verbose=0)
    merged = _assert_merges(model)
    assert merged.optimizer.iterations == 1
    np.testing.assert_allclose(
        merged.evaluate(images, images, verbose=0), model.evaluate(images, images, verbose=0), rtol=1e-5
    )


@pytest.mark.tensorflow
def test_exported_merged_unless_told_otherwise(tmp_path):
    model = _model(IMAGE, _qarepvgg)
    merged, apart = (kerasbn.export(model, tmp_path / f"{merge}.onnx", merge_branches=merge) for merge in (True, False))
    assert (merged.folded, merged.kept) == (2, {})
    assert apart.folded + sum(apart.kept.values()) == 2
    assert merged.nodes < apart.nodes


def test_what_stays_apart_is_no_normalization_that_stays(tmp_path):
    model = _model(IMAGE, lambda x: L.Add()([_chain(x, _conv(6, 3), BN()), _conv(6, 3, dilation_rate=2)(x)]))
    report = kerasbn.export(model, tmp_path / "model.keras")
    assert (report.folded, report.kept) == (1, {})


# Models inside


def test_inside_of_a_model_that_is_applied_to_every_step():
    block = _block(IMAGE, _repvgg)
    _assert_merges(_model((2, *IMAGE), lambda x: L.TimeDistributed(block)(x)))


def test_inside_of_the_parts_that_are_asked_for():
    @keras.saving.register_keras_serializable("kerasbn_tests")
    class Pair(keras.Model):
        def __init__(self, one, two):
            super().__init__()
            self.one, self.two = one, two

        def call(self, inputs):
            return self.two(self.one(inputs))

        def train_step(self, data):
            return {}

    model = Pair(*(_block(IMAGE, _repvgg, name) for name in ("one", "two")))
    model(np.zeros((1, *IMAGE), "float32"))
    plan = _plan(model, parts=["two"])
    assert {edit.site.partition("/")[0] for edit in plan.edits} == {"two"}
    assert [_counts(part) for part in (plan.apply().one, plan.apply().two)] == [(2, 3), (1, 0)]


def _block(shape, body, name="block"):
    inputs = keras.Input(shape, name=f"{name}_in")
    return keras.Model(inputs, body(inputs), name=name)


def test_inside_of_a_model_that_is_called_twice():
    block = _block(IMAGE, lambda x: L.ReLU()(_repvgg(x)))
    model = _model(IMAGE, lambda x: block(block(x)))
    merged = _assert_merges(model)
    assert isinstance(merged.get_layer("block"), keras.Model)
    assert "block/" in next(edit.site for edit in _plan(model).edits if edit.kind == "merge")


def test_branches_that_are_models():
    def body(x):
        branches = [keras.Sequential([_conv(6, size, name="conv"), BN(name="bn")], name=f"k{size}") for size in (3, 1)]
        return L.Add()([*(branch(x) for branch in branches), BN()(x)])

    merged = _assert_merges(_model(IMAGE, body))
    assert [layer.name for layer in merged.layers] == ["in", "tanh", "conv", "out"]


@keras.saving.register_keras_serializable("kerasbn_tests")
class RepVGGBlock(L.Layer):
    """A block as people write it."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.branches = [keras.Sequential([_conv(filters, size), BN()]) for size in (3, 1)]
        self.skip = BN()

    def build(self, shape):
        for part in (*self.branches, self.skip):
            part.build(shape)

    def call(self, inputs):
        return keras.ops.relu(sum(branch(inputs) for branch in self.branches) + self.skip(inputs))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def test_custom_layers_are_opened():
    def body(x):
        return RepVGGBlock(6, name="second")(RepVGGBlock(6, name="first")(x))

    _assert_merges(_model(IMAGE, body), (2, 0))


# What stays


def _shared(x):
    conv = _conv(6, 3)
    return L.Concatenate()([L.Add()([conv(x), x]), conv(L.ReLU()(x))])


def _used_elsewhere(x):
    y = _conv(6, 3)(x)
    return L.Concatenate()([L.Add()([y, x]), L.Activation("tanh")(y)])


def _is_an_output():
    inputs = keras.Input(IMAGE)
    y = _conv(6, 3)(inputs)
    return randomize(keras.Model(inputs, [y, L.ReLU()(L.Add()([y, inputs]))]))


def _tied():
    model = _model(IMAGE, lambda x: L.Add()([L.Dense(6, name="a")(x), L.Dense(6, name="b")(x)]))
    one, two = model.get_layer("a"), model.get_layer("b")
    two._tracker.unlock()
    two._kernel = one._kernel
    two._trainable_variables[:] = [one._kernel, two.bias]
    return model


def _in_half_precision(x):
    half = {"dtype": "float16"}
    x = L.ReLU(**half)(x)
    return L.Add(**half)([L.Dense(6, **half)(x), x])


def _with_lora():
    model = _model(IMAGE, lambda x: L.Add()([L.Dense(6, name="a")(x), x]))
    model.get_layer("a").enable_lora(2)
    return model


def _quantized():
    model = _model(IMAGE, lambda x: L.Add()([L.Dense(6, name="a")(x), x]))
    model.get_layer("a").quantize("int8")
    return model


def _hard_swish(x):
    x = _conv(6, 3)(x)
    return L.Multiply()([x, L.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])


def _used_twice():
    return _model(IMAGE, _hard_swish)


STAYING = {
    "shared": (lambda: _model(IMAGE, _shared), Reason.SHARED_LAYER),
    "used elsewhere": (lambda: _model(IMAGE, _used_elsewhere), Reason.OTHER_CONSUMERS),
    "an output": (_is_an_output, Reason.OUTPUT),
    "tied": (_tied, Reason.TIED_WEIGHTS),
    "LoRA": (_with_lora, Reason.QUANTIZED),
    "quantized": (_quantized, Reason.QUANTIZED),
    "half precision": (
        lambda: _model(IMAGE, _in_half_precision),
        Reason.PRECISION,
    ),
    "a shift ahead of zeros": (
        lambda: _model(IMAGE, lambda x: L.Add()([_chain(x, BN(), _conv(6, 3)), _conv(6, 1)(x)])),
        Reason.ZERO_PADDING,
    ),
    "dearer, rectangular": (
        lambda: _model(IMAGE, lambda x: L.Add()([_conv(6, (1, 3))(x), _conv(6, (3, 1))(x)])),
        Reason.DEARER,
    ),
    "dearer, groups": (
        lambda: _model(IMAGE, lambda x: L.Add()([_conv(6, 3, groups=3)(x), _conv(6, 1)(x)])),
        Reason.DEARER,
    ),
    "dearer, depthwise": (
        lambda: _model(IMAGE, lambda x: L.Add()([_depthwise(3)(x), L.Dense(6)(x)])),
        Reason.DEARER,
    ),
    "dearer, groups that do not fit": (
        lambda: _model((5, 5, 12), lambda x: L.Add()([_conv(12, 3, groups=4)(x), _conv(12, 3, groups=6)(x)])),
        Reason.DEARER,
    ),
    "dilations that do not fit": (
        lambda: _model(IMAGE, lambda x: L.Add()([_conv(6, 3)(x), _conv(6, 3, dilation_rate=2)(x)])),
        Reason.ALIGNMENT,
    ),
    "open sizes and strides": (
        lambda: _model((None, None, 6), _repvgg_downwards),
        Reason.ALIGNMENT,
    ),
    "strides that come to one size": (
        lambda: _model((1, 1, 6), lambda x: L.Add()([_conv(6, 3, strides=2)(x), x])),
        Reason.ALIGNMENT,
    ),
    "Dropout that is random at inference": (
        lambda: _model(IMAGE, lambda x: L.Add()([_conv(6, 3)(x), L.Dropout(0.0)(x, training=True)])),
        Reason.MONTE_CARLO,
    ),
    # Ordinary sums, without a word
    "an activation": (lambda: _model(IMAGE, lambda x: L.Add()([L.Conv2D(6, 1, activation="relu")(x), x])), None),
    "a residual": (lambda: _model(IMAGE, lambda x: L.Add()([_chain(x, _conv(6, 3), L.ReLU(), _conv(6, 3)), x])), None),
    "two layers in a row": (lambda: _model(IMAGE, lambda x: L.Add()([_chain(x, _conv(6, 3), _conv(6, 3)), x])), None),
    "other values": (lambda: _model(IMAGE, lambda x: L.Add()([_conv(6, 3)(x), _conv(6, 3)(L.ReLU()(x))])), None),
    "a scale that is not alone": (_used_twice, None),
    "a scale that adds channels": (
        lambda: _model(IMAGE, lambda x: L.Dense(1)(x) * np.arange(1.0, 7.0, dtype="float32")),
        None,
    ),
    "no linear layer": (lambda: _model(IMAGE, lambda x: L.Add()([L.Rescaling(2.0)(x), x])), None),
    "spread out": (lambda: _model((1, 1, 6), lambda x: L.Add()([_conv(6, 1)(x), L.Dense(1)(x)])), None),
    "another axis": (
        lambda: _model((6, 6, 6), lambda x: L.Add()([_conv(6, 3)(x), BN(axis=1)(x)])),
        None,
    ),
}


@pytest.mark.parametrize("name", STAYING)
def test_stays(name):
    make, reason = STAYING[name]
    _assert_stays(make(), reason)


def test_normalization_that_trains_at_inference_stays():
    model = _model(IMAGE, lambda x: L.Add(name="sum")([_conv(6, 3)(x), BN(name="bn")(x, training=True)]))
    plan = _plan(model)
    assert {(skip.site, skip.reason) for skip in plan.skips} == {("sum#0", Reason.TRAINING), ("bn#0", Reason.TRAINING)}


def test_masks_stay_as_they_are():
    inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(5, 6, mask_zero=True)(inputs)
    model = randomize(keras.Model(inputs, L.GlobalAveragePooling1D()(L.Dense(6)(x) + x)))
    _assert_stays(model, None)


@pytest.mark.parametrize("weight", ["kernel", "bias"])
def test_weights_that_are_not_finite_stay(weight):
    model = _model(IMAGE, lambda x: L.Add(name="sum")([L.Dense(6, name="dense")(x), _conv(6, 3)(x)]))
    variable = getattr(model.get_layer("dense"), weight)
    variable.assign(variable * np.nan)
    assert [(skip.site, skip.reason) for skip in _plan(model).skips] == [("sum#0", Reason.NON_FINITE)]


def test_a_layer_that_does_more_than_it_shows_stays():
    class Clipped(L.Layer):
        def call(self, inputs):
            return keras.ops.clip(2 * inputs, -0.1, 0.1)

    class Shown(L.Layer):
        def call(self, inputs):
            return 2 * inputs if isinstance(inputs, keras.KerasTensor) else keras.ops.tanh(inputs)

    for layer in (Clipped, Shown):
        model = _model(IMAGE, lambda x, layer=layer: L.Add()([_conv(6, 3)(x), layer()(x)]))
        assert [edit for edit in _plan(model).edits if edit.kind == "merge"] == []


def test_a_layer_that_changes_what_it_holds_stays():
    class Counting(L.Layer):
        def build(self, shape):
            self.calls = self.add_weight(name="calls", shape=(1,), initializer="zeros", trainable=False)

        def call(self, inputs):
            self.calls.assign(self.calls + 1)
            return 2 * inputs

    model = _model(IMAGE, lambda x: Counting(name="counting")(_conv(6, 3)(x)))
    before = snapshot(model)
    assert _plan(model).edits == ()
    assert snapshot(model) == before


# Any sum


@st.composite
def _sums(draw):
    """What adds up a few branches of convolutions, depthwise ones, scales and the value itself."""
    strides = draw(st.sampled_from([1, 1, 2]))
    size, dilation = st.integers(1, 5), st.sampled_from([1, 1, 2] if strides == 1 else [1])
    kinds = ["conv", "depthwise", "dense", "identity"] if strides == 1 else ["conv", "depthwise"]

    def branch():
        """What makes the layers of a branch."""
        settings = {"strides": strides, "use_bias": draw(st.booleans()), "dilation_rate": draw(dilation)}
        sizes, groups = (draw(size), draw(size)), draw(st.sampled_from([1, 2, 4]))
        layer = {
            "conv": lambda: _conv(4, sizes, groups=groups, **settings),
            "depthwise": lambda: _depthwise(sizes[0], **settings),
            "dense": lambda: L.Dense(4),
            "identity": L.Identity,
        }[draw(st.sampled_from(kinds))]
        return [layer, *([BN] if draw(st.booleans()) else [])]

    branches = [branch() for _ in range(draw(st.integers(2, 4)))]
    return lambda x: L.Add()([_chain(x, *(make() for make in branch)) for branch in branches])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(body=_sums(), shape=st.tuples(st.integers(4, 7), st.integers(4, 7)), seed=st.integers(0, 99))
def test_any_sum_computes_the_same(body, shape, seed):
    model = randomize(_model((*shape, 4), body), seed)
    expected = inference(model, random_inputs(model))
    merged = kerasbn.fold(model)
    np.testing.assert_allclose(
        inference(merged, random_inputs(model))[0], expected[0], rtol=0, atol=1e-5 * max(np.max(np.abs(expected[0])), 1)
    )
    assert _counts(merged)[0] <= _counts(model)[0]
    assert merged.count_params() <= model.count_params() + 4
