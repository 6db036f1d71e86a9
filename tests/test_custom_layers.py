"""Layers of the user's own: opened where what they do can stand for them, kept whole where it cannot."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, inference, randomize, snapshot


class Residual(L.Layer):
    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(units, activation="relu", name="first", dtype=self.dtype_policy)
        self.second = L.Dense(units, name="second", dtype=self.dtype_policy)

    def call(self, inputs):
        return keras.ops.relu(self.second(self.first(inputs)) + inputs)


class PerStep(Residual):
    """As `TimeDistributed` wants its layers."""

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def compute_output_shape(self, shape):
        return shape


class WithDropout(Residual):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = L.Dropout(0.5, name="dropout", seed=3)

    def call(self, inputs, training=None):
        return self.second(self.dropout(self.first(inputs), training=training))


class Tower(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Residual(name=f"block_{number}") for number in range(2)]
        self.named = {"last": L.Dense(6, activation="tanh", name="last")}

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.named["last"](inputs)


class MadeInBuild(L.Layer):
    def build(self, shape):
        self.inner = L.Dense(shape[-1], activation="relu", name="inner")
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs)


class HoldsSequential(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = keras.Sequential([L.Dense(6, activation="relu", name="a"), L.Dense(6, name="b")], name="net")

    def call(self, inputs):
        return keras.ops.tanh(self.net(inputs))


class HoldsFunctional(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        inputs = keras.Input((6,), name="given")
        self.net = keras.Model(inputs, L.ReLU(name="f")(L.Dense(6, name="a")(inputs)), name="net")

    def call(self, inputs):
        return self.net(inputs) + inputs


class HoldsFunctionalAndTrains(HoldsFunctional):
    def call(self, inputs, training=None):
        return super().call(inputs)


class OfTwo(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(6, activation="relu", name="inner")

    def call(self, inputs, other, scale=1.0):
        return self.inner(inputs) * scale, other + inputs


class Inner(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Residual(name="block")

    def call(self, inputs):
        return self.block(inputs)


class OneName(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.all = [L.Dense(6, activation="relu", name="dense") for _ in range(3)]

    def call(self, inputs):
        for each in self.all:
            inputs = each(inputs)
        return inputs


class Whole(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tower = Tower(name="tower")
        self.head = L.Dense(2, name="head")

    def call(self, inputs):
        return self.head(self.tower(inputs))


def functional(*blocks, **kwargs):
    inputs = keras.Input((6,), name="in")
    x = inputs
    for block in blocks:
        x = block(x)
    return randomize(keras.Model(inputs, L.Dense(2, name="head")(x), **kwargs))


def twice():
    block = Residual(name="block")
    return functional(block, block)


def of_two():
    inputs = keras.Input((6,), name="in")
    one, other = OfTwo(name="two")(inputs, L.Rescaling(2.0, name="more")(inputs), scale=0.5)
    return randomize(keras.Model(inputs, L.Dense(2, name="head")(L.Concatenate(name="join")([one, other]))))


def subclassed():
    model = Whole()
    model(np.zeros((1, 6), "float32"))
    return randomize(model)


def mixed():
    return functional(Residual(name="block", dtype="mixed_bfloat16"))


def in_sequential():
    return randomize(keras.Sequential([keras.Input((6,), name="in"), Tower(name="tower"), L.Dense(2, name="head")]))


def along_steps():
    inputs = keras.Input((6,), name="in")
    x = L.Reshape((2, 3), name="steps")(inputs)
    x = L.TimeDistributed(PerStep(3, name="block"), name="td")(x)
    return randomize(keras.Model(inputs, L.Dense(2, name="head")(L.Flatten(name="flat")(x))))


TOWER = ["tower/block_0/first", "tower/block_0/second", "tower/block_1/first", "tower/block_1/second", "tower/last"]

# What is made, and the layers that a normalization serves, as if all had been written flat.
STYLES = {
    "residual": (lambda: functional(Residual(name="block")), ["block/first", "block/second"]),
    "dropout": (lambda: functional(WithDropout(name="block"), L.ReLU(name="f")), ["block/first", "block/second"]),
    "tower": (lambda: functional(Tower(name="tower")), TOWER),
    "called twice": (twice, ["block/first", "block/second"]),
    "made in build": (lambda: functional(MadeInBuild(name="block")), ["block/inner"]),
    "a Sequential inside": (lambda: functional(HoldsSequential(name="block")), ["block/b", "block/net/a"]),
    "a Functional inside": (lambda: functional(HoldsFunctional(name="block")), ["block/net/a"]),
    "a Functional inside, told to train": (
        lambda: functional(HoldsFunctionalAndTrains(name="block")),
        ["block/net/a"],
    ),
    "several inputs and outputs": (of_two, ["two/inner"]),
    "a subclassed model inside": (lambda: functional(Inner(name="in_it")), ["in_it/block/first", "in_it/block/second"]),
    "one name": (lambda: functional(OneName(name="o")), ["o/dense", "o/dense_1", "o/dense_2"]),
    "a subclassed model": (subclassed, TOWER),
    "along steps": (along_steps, ["td/block/first", "td/block/second"]),
    "in a Sequential": (in_sequential, TOWER),
    "mixed precision": (mixed, ["block/first", "block/second"]),
}


def served(plan):
    """The layers with a normalization of their own, by path; one behind an activation counts for its layer."""
    names = [
        f"{edit.site.partition('#')[0].rpartition('/')[0]}/{edit.changes[-1].layer.name.removesuffix('_bn')}"
        for edit in plan.edits
        if edit.kind == "insert"
    ]
    return sorted(names)


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("style", STYLES)
def test_styles(style, copy, tmp_path):
    make, expected = STYLES[style]
    if style == "one name" and not copy:
        pytest.skip("layers that are reused keep their names")
    source = make()
    before = snapshot(source)
    calls = [len(layer._inbound_nodes) for layer in source._flatten_layers()]
    plan = kerasbn.plan(source, copy=copy)
    assert served(plan) == sorted(expected)
    result = plan.apply()
    tolerance = 2e-2 if style == "mixed precision" else 1e-5
    assert_same_function(source, result, X, tolerance)
    assert snapshot(source) == before
    if copy:
        assert [len(layer._inbound_nodes) for layer in source._flatten_layers()] == calls
        assert not {id(each) for each in source.variables} & {id(each) for each in result.variables}
    result.save(tmp_path / "result.keras")  # loads without the classes
    loaded = keras.models.load_model(tmp_path / "result.keras")
    folded = kerasbn.fold(randomize(loaded))
    assert not [layer for layer in folded._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    assert_same_function(loaded, folded, X, 3e-2 if style == "mixed precision" else 1e-4)


X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


@pytest.mark.parametrize("style", ["residual", "dropout", "tower", "called twice", "several inputs and outputs"])
def test_trains_on_as_the_source(style):
    source = STYLES[style][0]()
    source.compile(keras.optimizers.Adam(0.01), "mse")
    source.fit(X, Y, verbose=0)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    for model in (source, result):
        model.fit(X, Y, epochs=3, shuffle=False, verbose=0)
    assert_same_function(source, result, X)


@pytest.mark.parametrize("kind", ["lora", "int8", "int4", "float8"])
def test_quantized_layers_inside(kind, tmp_path):
    source = functional(Residual(name="block"), Residual(name="other"))
    layer = source.get_layer("block").first
    if kind == "lora":
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    else:
        layer.quantize(kind)
    result = kerasbn.rewrite(source)
    made = result.get_layer("block").get_layer("first")
    assert (made.lora_enabled, made.quantization_mode) == (layer.lora_enabled, layer.quantization_mode)
    assert_same_function(source, result, X)
    result.save(tmp_path / "result.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "result.keras"), X)
    plan = kerasbn.plan(result, position="none", dropout="none", fold=True)
    # The layer in float8 rounds its bias, so keeps it, and what follows it shifts nothing: that folds forward.
    outcome = "4 folded." if kind == "float8" else "3 folded, 1 left alone (1 quantized)."
    assert plan.outcome == f"4 batch normalizations: {outcome}"
    assert_same_function(result, plan.apply(), X, 1e-4)


def test_what_is_frozen():
    block = WithDropout(name="block")
    source = functional(Residual(name="before"), block)
    block.trainable = False
    source.get_layer("before").first.trainable = False
    result = kerasbn.rewrite(source, position="none", dropout="none")
    assert not result.get_layer("block").trainable
    assert not result.get_layer("before").get_layer("first").trainable
    assert result.get_layer("before").get_layer("second").trainable
    assert len(result.trainable_variables) == len(source.trainable_variables)


def test_the_plan_begins_with_what_becomes_of_the_layers():
    source = functional(Residual(name="block"), Weighted(name="kept"))
    plan = kerasbn.plan(source)
    assert " ".join(str(plan).splitlines()[1:3]) == (
        "3 linear layers: 2 normalized now, 0 normalized already, 1 left alone (1 output). 2 more are inside of "
        "custom layers that are kept whole."
    )
    assert plan.to_dict()["outcome"] == plan.outcome
    (note,) = plan.notes
    assert "as models inside: block." in note
    nothing = kerasbn.plan(source, position="none")
    assert nothing.outcome == (
        "3 linear layers: 0 normalized now, 0 normalized already, 3 left alone (3 position). 2 more are inside of "
        "custom layers that are kept whole."
    )
    kept = kerasbn.plan(functional(Weighted(name="kept")), rules=[("head", "before")])
    assert kept.outcome.startswith("1 linear layer: 1 normalized now")
    folding = kerasbn.plan(plan.apply(), position="none", dropout="none", fold=True)
    assert folding.outcome == "2 batch normalizations: 2 folded."


def test_rules_by_path():
    source = functional(Tower(name="tower"))
    plan = kerasbn.plan(source, rules=[("tower/block_0/*", "skip"), ("tower/last", "before")])
    assert served(plan) == ["tower/block_1/first", "tower/block_1/second", "tower/last"]


class Weighted(Residual):
    def build(self, shape):
        self.scale = self.add_weight(shape=(6,), name="scale")

    def call(self, inputs):
        return super().call(inputs) * self.scale


class AddsLoss(Residual):
    def call(self, inputs):
        outputs = super().call(inputs)
        self.add_loss(keras.ops.mean(outputs))
        return outputs


class Measures(Residual):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mean = keras.metrics.Mean(name="mean")


class Masks(Residual):
    supports_masking = True

    def compute_mask(self, inputs, mask=None):
        return None


class Branches(Residual):
    def call(self, inputs, training=None):
        return self.first(inputs) if training else super().call(inputs)


class Counts(Residual):
    def call(self, inputs, training=None):
        return super().call(inputs) * (0.5 if training else 1.0)


class Freezes(Residual):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = L.Dropout(0.5)

    def call(self, inputs):
        return self.dropout(super().call(inputs), training=False)


class Passes(Residual):
    """As the base classes of some libraries do, to no effect."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


class Doubles(Residual):
    def __call__(self, *args, **kwargs):
        return 2.0 * super().__call__(*args, **kwargs)


class Looks(PerStep):
    def call(self, inputs):
        return super().call(-inputs if float(keras.ops.sum(inputs)) > 0 else inputs)


class Regularized(Residual):
    def __init__(self, **kwargs):
        super().__init__(**{"activity_regularizer": "l2", **kwargs})


KEPT = {
    Weighted: (Reason.OWN_WEIGHTS, "'scale'"),
    AddsLoss: (Reason.OWN_LOSSES, "add_loss"),
    Measures: (Reason.OWN_LOSSES, "'mean'"),
    Masks: (Reason.OWN_MASK, "compute_mask"),
    Branches: (Reason.TRAINING_BRANCH, "if training"),
    Counts: (Reason.NOT_FAITHFUL, "in training"),
    Freezes: (Reason.NOT_FAITHFUL, "in training"),
    Looks: (Reason.UNTRACEABLE, "test_custom_layers.py"),
    Regularized: (Reason.OWN_LOSSES, "activity regularizer"),
}


@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.__name__)
def test_kept_whole(kind):
    reason, detail = KEPT[kind]
    source = functional(Residual(name="before"), kind(name="block"))
    plan = kerasbn.plan(source)
    (skip,) = [skip for skip in plan.skips if skip.site == "block#0"]
    assert skip.reason is reason
    assert detail in skip.detail
    assert "linear layers inside: 2" in skip.detail
    assert served(plan) == ["before/first", "before/second"]
    result = plan.apply()
    assert type(result.get_layer("block")) is kind
    assert_same_function(source, result)


def test_a_call_that_passes_everything_on_is_opened():
    source = functional(Passes(name="block"))
    plan = kerasbn.plan(source)
    assert served(plan) == ["block/first", "block/second"]
    assert_same_function(source, plan.apply())


def test_a_call_that_does_something_besides_is_refused():
    source = functional(Doubles(name="block"))
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"block#0 \(Doubles\) does something besides its call"):
        kerasbn.rewrite(source)
    assert_same_function(source, kerasbn.rewrite(source, copy=False))


def test_around_what_is_kept_it_opens():
    class Holder(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.kept, self.opened = Weighted(name="kept"), Residual(name="opened")

        def call(self, inputs):
            return self.opened(self.kept(inputs))

    plan = kerasbn.plan(functional(Holder(name="holder")))
    assert served(plan) == ["holder/opened/first", "holder/opened/second"]
    assert {skip.site: skip.reason for skip in plan.skips}["holder/kept#0"] is Reason.OWN_WEIGHTS


def test_masks_that_arrive():
    class Masked(L.Layer):
        def __init__(self, supports, **kwargs):
            super().__init__(**kwargs)
            self.inner, self.supports_masking = L.Dense(4, activation="relu", name="inner"), supports

        def call(self, inputs):
            return self.inner(inputs)

    for supports in (True, False):
        inputs = keras.Input((5,), dtype="int32", name="in")
        x = L.Embedding(9, 4, mask_zero=True, name="embedding")(inputs)
        x = L.LSTM(3, name="lstm")(Masked(supports, name="block")(x))
        source = randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))
        result = kerasbn.rewrite(source)
        data = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]])
        assert_same_function(source, result, data)


def test_layers_of_one_name_that_are_reused_stay_together():
    source = functional(OneName(name="o"))
    plan = kerasbn.plan(source, copy=False)
    assert {skip.site: skip.reason for skip in plan.skips}["o#0"] is Reason.UNTRACEABLE
    assert_same_function(source, plan.apply())


def test_kept_if_asked():
    source = functional(Residual(name="block"))
    plan = kerasbn.plan(source, custom_layers="keep")
    assert not plan.edits
    assert {skip.site: skip.reason for skip in plan.skips}["block#0"] is Reason.OPAQUE


def test_folding_opens_for_batch_normalization():
    class Normalized(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner, self.norm = L.Dense(6, name="inner"), L.BatchNormalization(name="norm")

        def call(self, inputs, training=None):
            return keras.ops.relu(self.norm(self.inner(inputs), training=training))

    source = functional(Normalized(name="block"), Residual(name="plain"))
    folded = kerasbn.fold(source)
    assert [layer.name for layer in folded.get_layer("block").layers] == ["inputs", "inner"]
    assert type(folded.get_layer("plain")) is Residual  # nothing to fold in it
    assert_same_function(source, folded, tolerance=1e-4)
    kept = kerasbn.fold(source, custom_layers="keep")
    assert type(kept.get_layer("block")) is Normalized
    assert inference(kept, X)[0].shape == (8, 2)
