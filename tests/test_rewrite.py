"""What a rewrite keeps: state, settings, files, memory."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, names, random_inputs, randomize, sequential, snapshot


def _mlp(**kwargs):
    return sequential(
        L.Dense(8, activation="relu", name="a"),
        L.Dropout(0.3, name="d"),
        L.Dense(8, activation="tanh", name="b"),
        **kwargs,
    )


def _compiled(optimizer="adam", **kwargs):
    model = _mlp()
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], **kwargs)
    return model


def _data(size=32):
    generator = np.random.default_rng(3)
    return generator.normal(size=(size, 12)).astype("float32"), generator.integers(0, 3, size)


APPLICATIONS = {
    "VGG16": lambda: keras.applications.VGG16(weights=None, input_shape=(96, 96, 3), classes=10),
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10),
    "ResNet50V2": lambda: keras.applications.ResNet50V2(weights=None, input_shape=(96, 96, 3), classes=10),
}


@pytest.mark.parametrize("position", ["auto", "before", "after"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_applications_compute_the_same(application, position):
    source = APPLICATIONS[application]()
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            randomize(layer)
            layer.gamma.assign(np.abs(layer.gamma))
    inputs = random_inputs(source, batch=2)
    result = kerasbn.rewrite(source, position=position)
    outputs, nudged = (
        keras.ops.convert_to_numpy(source(x, training=False)) for x in (inputs, inputs * np.float32(1 + 1e-6))
    )
    assert_same_function(source, result, inputs, amplification=30 * np.max(np.abs(outputs - nudged)))
    assert len(result.layers) > len(source.layers) or application != "VGG16"


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
def test_layers_that_were_renamed(copy):
    """As one does to use a network twice."""
    source = sequential(
        L.Dense(8, activation="relu", name="a"), L.TimeDistributed(L.Dense(4, "relu"), name="b"), shape=(5, 6)
    )
    for layer in source.layers:
        layer.name = f"left_{layer.name}"
    result = kerasbn.rewrite(source, copy=copy)
    assert names(result) == "left_a left_a_bn left_a_activation left_b left_b_bn left_b_activation left_head"
    assert_same_function(source, result)


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
def test_training_the_result_leaves_the_source_as_it_is_only_if_copied(copy):
    source = _compiled()
    before = snapshot(source)
    result = kerasbn.rewrite(source, copy=copy)
    assert snapshot(source) == before
    result.fit(*_data(), verbose=0)
    assert (snapshot(source)["weights"] == before["weights"]) == copy


def test_layers_that_need_no_change_are_reused_without_copy():
    source = _mlp()
    result = kerasbn.rewrite(source, copy=False)
    assert result.get_layer("head") is source.get_layer("head")
    assert result.get_layer("b") is source.get_layer("b")
    assert result.get_layer("a") is not source.get_layer("a")  # its activation was split off
    assert_same_function(source, result)


class NoConfig(L.Layer):
    """Cannot be rebuilt: its argument is not in its configuration."""

    def __init__(self, matrix, **kwargs):
        super().__init__(**kwargs)
        self.matrix = matrix

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.matrix)


def test_a_lambda_layer_is_copied():
    offset = 3.0
    source = sequential(L.Dense(8, activation="relu", name="a"), L.Lambda(lambda x: x * 2 + offset, name="own"))
    result = kerasbn.rewrite(source)
    assert result.get_layer("own") is not source.get_layer("own")
    assert_same_function(source, result)


class Nameless(L.Layer):
    """Its configuration leads nowhere."""

    def call(self, inputs):
        return inputs

    def get_config(self):
        return None


def test_a_configuration_that_is_none():
    source = sequential(L.Dense(8, activation="relu", name="a"), Nameless(name="own"))
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"'own' \(Nameless\).*copy=False"):
        kerasbn.rewrite(source)


class Unnamed(L.Layer):
    """Its weights have the names that Keras counts up."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],))

    def call(self, inputs):
        return inputs * self.scale


def test_weights_without_names_are_copied():
    source = sequential(L.Dense(8, activation="relu", name="a"), Unnamed(name="own"), Unnamed(name="own2"))
    assert_same_function(source, kerasbn.rewrite(source))


class Scaled(keras.Operation):
    """An operation that cannot be saved."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def call(self, x):
        return x * self.matrix

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_an_operation_that_cannot_be_saved_is_copied():
    inputs = keras.Input((12,), name="in")
    x = Scaled(np.arange(8, dtype="float32"))(L.Dense(8, activation="relu", name="a")(inputs))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))
    assert_same_function(source, kerasbn.rewrite(source))


def test_a_layer_that_cannot_be_rebuilt_is_reused_or_refused():
    source = sequential(L.Dense(8, activation="relu", name="a"), NoConfig(np.eye(8, dtype="float32"), name="odd"))
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"'odd'.*copy=False"):
        kerasbn.rewrite(source)
    assert_same_function(source, kerasbn.rewrite(source, copy=False))


def test_compiled_state():
    source = _compiled(
        keras.optimizers.SGD(0.01, momentum=0.9),
        weighted_metrics=["sparse_categorical_crossentropy"],
        steps_per_execution=2,
    )
    source.fit(*_data(), verbose=0)
    before = snapshot(source)
    result = kerasbn.rewrite(source)
    assert snapshot(source) == before
    ours, theirs = result.get_compile_config(), source.get_compile_config()
    assert {**ours, "optimizer": None} == {**theirs, "optimizer": None}
    assert result.optimizer.get_config() == source.optimizer.get_config()
    assert result.optimizer is not source.optimizer
    result.fit(*_data(), verbose=0)


def _off_by(true, predicted, power=1):
    return keras.ops.mean(keras.ops.abs(true - predicted) ** power, -1)


class OffBy(keras.metrics.MeanMetricWrapper):
    """A metric that knows its function by itself."""

    def __init__(self, name="off_by", dtype=None, fn=None, power=2):
        super().__init__(_off_by, name=name, dtype=dtype, power=power)


AROUND_FUNCTIONS = {
    "a function": lambda: keras.metrics.MeanMetricWrapper(_off_by, name="off", power=2),
    "a lambda": lambda: keras.metrics.MeanMetricWrapper(lambda true, predicted: _off_by(true, predicted), name="off"),
    "a loss": lambda: keras.metrics.MeanMetricWrapper(keras.losses.Huber(), name="off"),
    "by a subclass": lambda: OffBy(name="off"),
}


@pytest.mark.parametrize("metric", AROUND_FUNCTIONS)
def test_metrics_around_functions(metric):
    source = sequential(L.Dense(8, activation="relu", name="a"))
    given, weighted = AROUND_FUNCTIONS[metric](), AROUND_FUNCTIONS[metric]()
    source.compile(
        "sgd", lambda true, predicted: _off_by(true, predicted), metrics=[given], weighted_metrics=[weighted]
    )
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(32, 12)), generator.normal(size=(32, 3))
    source.fit(x, y, verbose=0)
    kept = float(given.result())
    result = kerasbn.rewrite(source, position="none", dropout="none")
    expected = source.evaluate(x, y, return_dict=True, verbose=0)
    given.reset_state()
    assert result.evaluate(x, y, return_dict=True, verbose=0) == pytest.approx(expected)
    assert float(given.result()) == 0.0 != kept, "the state is shared"


def test_a_model_that_was_not_compiled_stays_so():
    assert not kerasbn.rewrite(_mlp()).compiled


def test_layer_settings_are_kept():
    source = sequential(
        L.Dense(
            8,
            activation="relu",
            name="a",
            kernel_regularizer=keras.regularizers.L2(0.1),
            kernel_constraint=keras.constraints.MaxNorm(2.0),
            activity_regularizer=keras.regularizers.L1(0.5),
            dtype="mixed_bfloat16",
        ),
        L.Dense(8, activation="relu", name="b", bias_regularizer=keras.regularizers.L2(0.2)),
        L.Dense(8, activation="relu", name="c", trainable=False),
    )
    result = kerasbn.rewrite(source, position="before", rules=[("c", "before")])
    a = result.get_layer("a")
    assert a.kernel_regularizer.l2 == np.float32(0.1)
    assert a.kernel_constraint.max_value == 2.0
    assert a.activity_regularizer is None
    assert result.get_layer("a_activation").activity_regularizer.l1 == 0.5  # it acts on what the activation yields
    assert result.get_layer("a_bn").compute_dtype == "bfloat16"
    assert result.get_layer("a_bn").variable_dtype == "float32"
    assert result.get_layer("b").bias is not None  # a regularized bias stays a bias
    assert not result.get_layer("c").trainable
    assert not result.get_layer("c_bn").trainable
    inputs = random_inputs(source)
    source(inputs), result(inputs)
    np.testing.assert_allclose([float(x) for x in result.losses], [float(x) for x in source.losses], rtol=1e-5)


def test_preserve_starts_as_the_identity_and_takes_the_bias_over():
    source = sequential(L.Dense(8, activation="relu", name="a"))
    norm = kerasbn.rewrite(source, position="before").get_layer("a_bn")
    np.testing.assert_allclose(norm.gamma, np.sqrt(norm.moving_variance + np.float32(norm.epsilon)), rtol=1e-6)
    np.testing.assert_array_equal(norm.beta, source.get_layer("a").bias)


def test_without_preserve_the_initializers_decide():
    norm = kerasbn.rewrite(_mlp(), preserve=False).get_layer("a_bn")
    for weight, value in ((norm.gamma, 1), (norm.beta, 0), (norm.moving_mean, 0), (norm.moving_variance, 1)):
        np.testing.assert_array_equal(weight, np.full(8, value))


NORMS = {
    "keras": lambda: keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-2),
    "no scale": lambda: keras.layers.BatchNormalization(scale=False),
    "no center": lambda: keras.layers.BatchNormalization(center=False),
    "kerasbn": lambda: kerasbn.layers.BatchNormalization(
        momentum=0.5, gamma_initializer=keras.initializers.Constant(0.1)
    ),
}


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("norm", NORMS)
def test_norm_is_the_prototype(norm, position):
    prototype = NORMS[norm]()
    source = _mlp()
    result = kerasbn.rewrite(source, norm=prototype, position=position)
    made = result.get_layer("a_bn")
    assert type(made) is type(prototype)
    ignored = ("name", "axis", "trainable", "dtype")
    assert {k: v for k, v in made.get_config().items() if k not in ignored} == {
        k: v for k, v in prototype.get_config().items() if k not in ignored
    }
    assert_same_function(source, result)


class Plain(keras.layers.BatchNormalization):
    """Does something in training alone."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs * 2 if training else inputs, training=training, mask=mask)


class Twice(kerasbn.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Unclear(keras.layers.BatchNormalization):
    def __init__(self, secret, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize("data", [None, np.random.default_rng(0).normal(3, 2, size=(64, 12)).astype("float32")])
def test_a_subclass_that_infers_as_batch_normalization_does(data):
    source = _mlp()
    result = kerasbn.rewrite(source, norm=Plain(), position="before", data=data)
    assert type(result.get_layer("a_bn")) is Plain
    assert result.get_layer("a").bias is None
    assert_same_function(source, result)


def test_a_subclass_that_infers_otherwise_starts_as_its_own_initializers_say():
    with pytest.raises(kerasbn.OptionError, match=r"norm is a Twice.*something of its own.*pass preserve=False"):
        kerasbn.plan(_mlp(), norm=Twice())
    result = kerasbn.rewrite(_mlp(), norm=Twice(), position="before", preserve=False)
    assert result.get_layer("a").bias is not None
    np.testing.assert_array_equal(result.get_layer("a_bn").moving_variance, np.ones(8))


def test_a_norm_that_cannot_be_made_again():
    with pytest.raises(kerasbn.OptionError, match=r"Unclear, which cannot be made again.*'secret'.*get_config"):
        kerasbn.plan(_mlp(), norm=Unclear("x"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"position": "before"}, "a f b b_bn b_activation head"),
        ({"position": "after"}, "a f b b_bn head"),
        ({"rules": [("f", "after")]}, "a f b b_bn b_activation head"),
        ({"normalize_inputs": True}, "in_bn a f b b_bn b_activation head"),
    ],
)
def test_a_norm_that_cannot_take_a_value_is_left_out_there(options, expected):
    source = sequential(L.Dense(6, name="a"), L.ReLU(name="f"), L.Dense(8, activation="relu", name="b"))
    plan = kerasbn.plan(source, norm=L.GroupNormalization(groups=4), **options)
    (skip,) = (skip for skip in plan.skips if skip.reason is Reason.NORM and skip.site == "a#0")
    assert "must be a multiple" in skip.detail
    assert names(plan.apply()) == expected


class Halved(L.Layer):
    def call(self, inputs):
        return inputs[..., ::2]


def test_a_norm_that_changes_the_shape_is_left_out():
    plan = kerasbn.plan(_mlp(), norm=Halved())
    assert {skip.reason for skip in plan.skips if skip.site in ("a#0", "b#0")} == {Reason.NORM}


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    "wrap", [lambda layer, **kw: layer(**kw), lambda layer, **kw: L.TimeDistributed(layer(), **kw)]
)
def test_an_activity_regularizer_sees_what_it_saw(wrap, activation):
    watched = wrap(lambda **kw: L.Dense(5, activation=activation, **kw), activity_regularizer="l2", name="a")
    source = sequential(watched, L.Activation("tanh"), shape=(4, 6))
    result = kerasbn.rewrite(source, position="before")
    inputs = random_inputs(source)
    source(inputs), result(inputs)
    np.testing.assert_allclose(result.losses, source.losses, rtol=1e-5)


def test_another_normalization_keeps_the_bias():
    result = kerasbn.rewrite(_mlp(), norm=keras.layers.LayerNormalization(), position="before")
    assert names(result) == "a a_bn a_activation d b b_bn b_activation head"
    assert result.get_layer("a").bias is not None
    assert isinstance(result.get_layer("a_bn"), keras.layers.LayerNormalization)


def test_names_do_not_collide():
    source = sequential(
        L.Dense(8, activation="relu", name="a"), L.Dense(8, name="a_bn"), L.Dense(8, name="a_activation")
    )
    assert names(kerasbn.rewrite(source)) == "a a_bn_1 a_activation_1 a_bn a_bn_bn a_activation a_activation_bn head"


@pytest.mark.tensorflow
def test_hidden_state_is_copied():
    inputs = keras.Input((12,), name="in")
    normalization = L.Normalization(name="standard")
    normalization.adapt(np.random.default_rng(0).normal(3, 5, size=(50, 12)))
    words = keras.Input((), dtype="string", name="words")
    lookup = L.StringLookup(output_mode="one_hot", name="lookup")
    lookup.adapt(["red", "green", "blue"])
    x = L.Dense(8, activation="relu", name="a")(normalization(inputs))
    source = keras.Model([inputs, words], L.Dense(2, name="head")(L.Concatenate()([x, lookup(words)])))
    import tensorflow as tf

    batch = [tf.ones((3, 12)), tf.constant(["red", "blue", "none"])]
    assert_same_function(source, kerasbn.rewrite(source), batch)


def test_stateful_rnn_is_copied():
    source = randomize(
        keras.Sequential(
            [
                *(keras.Input((5, 3), batch_size=2), L.LSTM(4, stateful=True, return_sequences=True, name="rnn")),
                *(L.Dense(8, activation="relu", name="a"), L.Dense(2, name="head")),
            ]
        )
    )
    result = kerasbn.rewrite(source)
    inputs = random_inputs(source)
    assert_same_function(source, result, inputs)
    assert_same_function(source, result, inputs)  # the state moved on alike


def test_random_state_is_copied():
    source = _mlp()
    result = kerasbn.rewrite(source, position="none", dropout="none")
    inputs = random_inputs(source)
    for _ in range(2):
        one, other = (keras.ops.convert_to_numpy(model(inputs, training=True)) for model in (source, result))
        np.testing.assert_array_equal(one, other)


def test_masks_reach_the_normalization():
    inputs = keras.Input((6,), dtype="int32", name="in")
    x = L.Embedding(10, 4, mask_zero=True, name="embedding")(inputs)
    x = L.Dense(5, activation="relu", name="a")(x)
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(L.LSTM(3, name="rnn")(x))))
    result = kerasbn.rewrite(source, position="before")
    padded = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    assert_same_function(source, result, padded)
    result(padded, training=True)
    kept = keras.ops.convert_to_numpy(result.get_layer("a").kernel)
    embedded = keras.ops.convert_to_numpy(source.get_layer("embedding").embeddings)[padded[padded > 0]] @ kept
    norm = result.get_layer("a_bn")
    np.testing.assert_allclose(norm.moving_mean, embedded.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"recurrent": "sequence_wise"}, {"position": "none", "copy": False}])
@pytest.mark.parametrize("masking", ["Masking", "Embedding"])
def test_a_sequential_in_which_masks_are_worked_out(masking, options):
    first = L.Masking(name="first") if masking == "Masking" else L.Embedding(5, 3, mask_zero=True, name="first")
    given = keras.Input((6, 3) if masking == "Masking" else (6,))
    layers = [L.Dense(8, activation="relu", name="a"), L.SimpleRNN(4, name="rnn"), L.Dense(3, name="b")]
    model = randomize(keras.Sequential([given, first, *layers]))
    inputs = random_inputs(model)
    inputs[:, 4:] = 0
    result = kerasbn.rewrite(model, **options)
    assert type(result) is keras.Sequential
    assert_same_function(model, result, inputs)
    assert_same_function(result, kerasbn.fold(result), inputs, tolerance=1e-4)


def test_explicit_call_arguments_are_kept():
    inputs = keras.Input((12,), name="in")
    x = L.Dense(8, activation="relu", name="a")(inputs)
    x = L.Dropout(0.5, name="d")(x, training=True)
    source = keras.Model(inputs, L.Dense(2, name="head")(L.Dense(4, activation="relu", name="b")(x)))
    plan = kerasbn.plan(source)
    assert {skip.site: skip.reason for skip in plan.skips}["d#0"] == kerasbn.Reason.MONTE_CARLO
    (site,) = (node for node in plan.apply().get_layer("d")._inbound_nodes)
    assert site.arguments.kwargs == {"training": True}


def test_a_value_used_twice_and_given_out():
    inputs = keras.Input((12,), name="in")
    x = L.Dense(8, activation="relu", name="a")(inputs)
    y = L.Dense(8, activation="relu", name="b")(x)
    source = randomize(keras.Model(inputs, [x, L.Dense(2, name="head")(L.Concatenate()([x, y])), inputs]))
    result = kerasbn.rewrite(source)
    assert "a_bn" not in names(result)
    assert "b_bn" in names(result)
    assert_same_function(source, result)


@pytest.mark.parametrize("copy", [True, False])
def test_outputs_keep_their_names(copy):
    """Losses and metrics go by them."""
    inputs = keras.Input((12,), name="in")
    x = L.Dense(8, activation="relu", name="a")(inputs)
    source = randomize(keras.Model(inputs, [L.Dense(2, name="one")(x), L.Dense(3, name="other")(x)]))
    source.compile("sgd", {"one": "mse", "other": "mae"}, metrics={"other": ["mse"]})
    result = kerasbn.rewrite(source, rules=[("one", "before"), ("other", "before")], copy=copy)
    assert {"one_bn", "other_bn"} <= set(names(result).split())
    assert result.output_names == source.output_names == ["one", "other"]
    history = result.fit(np.ones((4, 12)), [np.ones((4, 2)), np.ones((4, 3))], verbose=0).history
    assert history.keys() >= {"one_loss", "other_loss", "other_mse"}
    assert kerasbn.fold(result).output_names == ["one", "other"]


def test_a_deep_chain_goes_past_the_recursion_limit():
    x = inputs = keras.Input((4,))
    for _ in range(450):
        x = L.Dense(4, activation="relu")(x)
    source = keras.Model(inputs, x)
    limit = sys.getrecursionlimit()
    result = kerasbn.rewrite(source, position="before")
    assert sys.getrecursionlimit() == limit
    assert len(result.layers) == 1 + 3 * 449 + 1


def test_saved_and_loaded(tmp_path):
    source = _compiled()
    result = kerasbn.rewrite(source)
    result.fit(*_data(), verbose=0)
    result.save(tmp_path / "result.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "result.keras"), tolerance=0)


LOAD = """
import sys, keras, numpy as np
{prelude}
model = keras.models.load_model(sys.argv[1])
assert ("kerasbn" in sys.modules) == {imported}
model.fit(np.ones((8, 12), "float32"), np.zeros(8), verbose=0)
np.save(sys.argv[2], model.get_layer("a_bn").get_weights()[0] * 0 + np.asarray(model.optimizer.learning_rate))
"""


@pytest.mark.parametrize("own", [True, False], ids=["kerasbn", "keras"])
def test_loads_in_a_fresh_process(tmp_path, own):
    norm = None if own else keras.layers.BatchNormalization()
    result = kerasbn.rewrite(_compiled(), norm=norm, learning_rate_scale=5.0)
    result.save(tmp_path / "result.keras")
    code = LOAD.format(prelude="import kerasbn.layers" if own else "", imported=own)
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "result.keras", tmp_path / "rate.npy"], check=True, capture_output=True
    )
    np.testing.assert_allclose(np.load(tmp_path / "rate.npy"), 0.005, rtol=1e-6)


class Distilled(keras.Model):
    """A Functional model with a training step of its own, as Keras's guides write them."""

    def train_step(self, data):
        return {"steps": 1.0}


def _adapted(layer):
    layer.enable_lora(2)
    for weight in layer.trainable_variables:
        weight.assign(np.random.default_rng(4).normal(size=weight.shape))


SECOND_FORMS = {
    "LoRA": _adapted,
    "int8": lambda layer: layer.quantize("int8"),
    "float8": lambda layer: layer.quantize("float8"),
}


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("form", SECOND_FORMS)
def test_layers_that_were_adapted_or_quantized(form, copy):
    source = randomize(_mlp())
    SECOND_FORMS[form](source.get_layer("a"))
    result = kerasbn.rewrite(source, copy=copy)
    assert names(result) == "a a_bn a_activation b b_bn head"
    assert result.get_layer("a").dtype_policy == source.get_layer("a").dtype_policy
    assert not any(result.get_layer(name).quantization_mode for name in ("a_bn", "a_activation"))
    assert_same_function(source, result)


FLOAT8 = {
    "nothing": {"position": "none", "dropout": "none"},
    "l2": {"l2": 1e-4},
    "weight decay": {"weight_decay_scale": 0.5},
    "after": {"position": "after"},
    "fold": {"position": "none", "fold": True},
}


@pytest.mark.parametrize("options", FLOAT8)
def test_a_model_that_trains_in_float8(options):
    source = sequential(L.Dense(8, activation="relu", kernel_regularizer="l2", name="a"), L.BatchNormalization())
    source.quantize("float8")
    source.compile("adam", "sparse_categorical_crossentropy")
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(64, 12)), generator.integers(0, 3, 64)
    source.fit(x, y, verbose=0)
    plan = kerasbn.plan(source, **FLOAT8[options])
    result = plan.apply()
    assert_same_function(source, result)
    for name in ("a", "head"):
        theirs, ours = ({v.name: v for v in model.get_layer(name).variables} for model in (source, result))
        for weight in theirs:
            np.testing.assert_array_equal(ours[weight], theirs[weight])
            assert ours[weight].overwrite_with_gradient == theirs[weight].overwrite_with_gradient
    if options == "fold":
        assert [skip.reason for skip in plan.skips] == [kerasbn.Reason.QUANTIZED]
    if options == "nothing":
        for model in (source, result):
            model.fit(x, y, shuffle=False, verbose=0)
        assert_same_function(source, result)


@keras.saving.register_keras_serializable("tests.rewrite")
class Amplified(L.Dense):
    """One whose weights another thing than its configuration decides on."""

    with_gain = False

    def build(self, input_shape):
        super().build(input_shape)
        if self.with_gain:
            self.gain = self.add_weight(shape=(), name="gain", initializer="ones")


def test_layers_that_get_other_weights_when_they_are_made_again(monkeypatch):
    source = sequential(Amplified(8, kernel_regularizer="l2", name="a"))
    source.compile("sgd", "mse")
    monkeypatch.setattr(Amplified, "with_gain", True)
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"'a' \(Amplified\).* 'gain' .*get_config"):
        kerasbn.rewrite(source, weight_decay_scale=0.2, copy=False)


class Configured(keras.Model):
    """A Functional model that makes its own graph."""

    def __init__(self, units):
        inputs = keras.Input((12,), name="in")
        x = L.Dense(units, activation="relu", name="a")(inputs)
        super().__init__(inputs=inputs, outputs=L.Dense(2, name="head")(x), name="configured")


class Stepping(Configured):
    """One that makes its own graph and has a training step: it cannot be made again."""

    def train_step(self, data):
        return {"steps": 1.0}


def test_subclasses_of_functional_models():
    inputs = keras.Input((12,), name="in")
    source = randomize(Distilled(inputs, L.Dense(2, name="head")(L.Dense(8, activation="relu", name="a")(inputs))))
    result = kerasbn.rewrite(source)
    assert type(result) is Distilled
    assert_same_function(source, result)
    source = randomize(Configured(8))
    result = kerasbn.rewrite(source)
    assert type(result) is type(keras.Model(inputs, inputs))  # its own __init__ would make the old graph again
    assert names(result) == "in a a_bn a_activation head"
    assert_same_function(source, result)


UNSUPPORTED = {
    "not a model": (lambda: L.Dense(3), "Expected a Keras 3 model"),
    "not built": (lambda: keras.Sequential([L.Dense(3)], name="raw"), "'raw' .* has no graph yet.*keras.Input"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_models_that_cannot_be_rewritten(case):
    make, message = UNSUPPORTED[case]
    with pytest.raises(kerasbn.UnsupportedModelError, match=message):
        kerasbn.rewrite(make())


OPTIONS = {
    "unknown name": ({"positon": "after"}, "Unknown option 'positon'. Did you mean 'position'"),
    "position": ({"position": "behind"}, "position is 'behind'; it must be one of 'auto'"),
    "rule's form": ({"rules": ["a=after"]}, "rules must be pairs"),
    "rules as text": ({"rules": "a"}, "rules must be pairs"),
    "rule's position": ({"rules": [("a", "behind")]}, "Rule 'a' has the position 'behind'"),
    "rule without a match": ({"rules": [("z*", "after")]}, "Rule 'z\\*' matches no layer"),
    "rule for a call site": ({"rules": [("fc1#0", "after")]}, "call site: the path of its layer is 'fc1'"),
    "norm": ({"norm": keras.layers.BatchNormalization}, "must be a layer instance"),
    "norm that is none": ({"norm": keras.layers.Dropout(0.5)}, "a Dropout, which normalizes nothing"),
    "dropout": ({"dropout": "some"}, "dropout is 'some'"),
    "scale of zero": ({"learning_rate_scale": 0.0}, "must be a positive number"),
    "scale of an uncompiled model": ({"learning_rate_scale": 5.0}, "was never compiled"),
    "flag": ({"copy": 1}, "copy is 1; it must be True or False"),
    "shared": ({"shared": "both"}, "shared is 'both'"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_do_not_fit(case):
    options, message = OPTIONS[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        kerasbn.plan(_mlp(), **options)


VERBS = {
    "rewrite": kerasbn.rewrite,
    "fold": kerasbn.fold,
    "from_keras": kerasbn.layers.from_keras,
    "to_keras": lambda model: kerasbn.layers.to_keras(kerasbn.layers.from_keras(model)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_was_set_on_single_variables_comes_along(verb):
    source = sequential(L.Dense(8, activation="relu", name="a"), L.Dense(8, name="b"), L.BatchNormalization(name="bn"))
    source.get_layer("b").kernel.trainable = False
    source.get_layer("b").kernel.constraint = keras.constraints.MaxNorm(2.0)
    source.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.1)
    source.get_layer("a").kernel.regularizer = keras.regularizers.L2(0.2)
    result = VERBS[verb](source)
    assert not result.get_layer("b").kernel.trainable
    assert result.get_layer("b").kernel.constraint.max_value == 2.0
    assert len(result.losses) == len(source.losses) == 2
    if verb != "fold":  # which changes the weights
        np.testing.assert_allclose(sum(result.losses), sum(source.losses), rtol=1e-6)


def test_a_plan_applied_late_takes_the_weights_as_they_are_then():
    source = randomize(sequential(L.Dense(8, name="a"), L.BatchNormalization(name="n"), L.ReLU(), L.Dense(4)))
    plans = [kerasbn.plan(source, position="none", dropout="none", fold=True), kerasbn.plan(source, position="before")]
    source.compile("sgd", "mse")
    inputs = random_inputs(source)
    source.fit(inputs, np.ones((len(inputs), *source.output_shape[1:])), epochs=3, verbose=0)
    for plan, tolerance in zip(plans, (1e-4, 1e-5), strict=True):
        assert_same_function(source, plan.apply(), inputs, tolerance)


def test_a_plan_for_what_has_changed_is_refused():
    source = randomize(sequential(L.Dense(8, name="a"), L.ReLU(), L.Dense(4, activation="relu", name="b")))
    plan = kerasbn.plan(source)
    source.get_layer("a").trainable = False
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"a#0 .*Plan it again"):
        plan.apply()
    assert_same_function(source, kerasbn.plan(source).apply())


def test_the_plan_for_a_trained_model_tells_of_data():
    source = sequential(L.Dense(8, activation="relu", name="a"))
    source.compile("sgd", "mse")
    inputs = random_inputs(source)
    assert not any("data=" in note for note in kerasbn.plan(source).notes)
    source.fit(inputs, np.ones((len(inputs), *source.output_shape[1:])), verbose=0)
    assert any("data=" in note for note in kerasbn.plan(source).notes)
    assert not any("data=" in note for note in kerasbn.plan(source, data=inputs).notes)
