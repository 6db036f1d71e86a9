"""The layer against its definition, and against Keras's."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasbn.layers import BatchNormalization
from tests.serializable import reference
from tests.serializable.training import with_gradients

SHAPES = {
    "vectors": ((6, 3), -1),
    "sequences": ((4, 5, 3), -1),
    "images": ((3, 4, 2, 3), -1),
    "volumes": ((2, 3, 2, 2, 3), -1),
    "sequences, channels first": ((3, 3, 4), 1),
    "images, channels first": ((3, 3, 4, 2), 1),
    "volumes, channels first": ((2, 3, 2, 2, 8), 1),
    "channels in between": ((3, 2, 3, 2), 2),
}
MODES = {"eager": lambda function: function}
if keras.backend.backend() == "tensorflow":
    MODES["graph"] = tf.function
    MODES["xla"] = lambda function: tf.function(function, jit_compile=True)
    MODES["open shapes"] = lambda function: tf.function(function, reduce_retracing=True)
WIDEST = "float64" if keras.backend.backend() == "tensorflow" else "float32"
TOLERANCES = {"float64": 1e-6, "float32": 2e-5, "mixed_float16": 5e-3, "mixed_bfloat16": 4e-2}


@pytest.fixture(params=["small", pytest.param("large", marks=pytest.mark.tensorflow)])
def size(request, monkeypatch):
    """What the batches of the tests count as: the fused kernel takes the large ones alone."""
    if request.param == "large":
        from kerasbn.serializable._kernels import tensorflow as kernels

        monkeypatch.setattr(kernels, "_SMALL", -1)


by_size = pytest.mark.usefixtures("size")
by_shape = pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=SHAPES)


def by_mode(*cases, names="mode"):
    """Cases in a mode each, a tuple where it is not all there is to them; those that the backend has."""
    return pytest.mark.parametrize(names, [case for case in cases if case in MODES or case[0] in MODES])


def data(shape, seed=0, mean=2.0, std=3.0):
    return np.random.default_rng(seed).normal(size=shape) * std + mean


def built(shape, kind=BatchNormalization, **arguments):
    """A layer with gamma of both signs and statistics over decades."""
    layer = kind(**arguments)
    layer.build(shape)
    generator = np.random.default_rng(7)
    for variable in layer.weights:
        values = generator.normal(size=variable.shape)
        if variable.name in ("moving_variance", "moving_stddev", "renorm_stddev"):
            values = np.exp(values)
        if variable.name == "gamma":
            values = np.sign(values) * np.exp(values)
        if variable.name != "seen_batches":
            variable.assign(values)
    return layer


def trained(layer, x, dy, mode="eager", mask=None):
    """One step: the outputs, and the gradients of sum(dy * y) with respect to x, gamma and beta."""

    function = MODES[mode](lambda x, dy, mask: with_gradients(layer, x, dy, mask))
    x, dy = (keras.ops.convert_to_tensor(each, layer.compute_dtype) for each in (x, dy))
    mask = None if mask is None else keras.ops.convert_to_tensor(mask)
    if mode == "open shapes":  # traced with other sizes before, all of them but the channels'
        state = [variable.numpy() for variable in layer.variables]
        for size in (2, 1):
            paddings = [(0, 0 if axis == layer.axis % len(x.shape) else size) for axis in range(len(x.shape))]
            larger = None if mask is None else tf.pad(mask, paddings[: len(mask.shape)])
            function(tf.pad(x, paddings), tf.pad(dy, paddings), larger)
        for variable, value in zip(layer.variables, state, strict=True):
            variable.assign(value)
    return [array(each) for each in function(x, dy, mask)]


def array(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float64")


def assert_close(expected, got, tolerance):
    """Max |difference| <= tolerance of max |expected|."""
    expected, got = array(expected), array(got)
    assert got.shape == expected.shape
    assert np.max(np.abs(expected - got), initial=0) <= tolerance * np.max(np.abs(expected), initial=1e-30)


def statistics(layer):
    return [variable.numpy() for variable in layer.variables if variable.name not in ("gamma", "beta")]


# What Keras computes


@by_size
@by_shape
@by_mode(
    ("eager", WIDEST),
    ("open shapes", "float32"),
    *(("graph", dtype) for dtype in ("float32", "mixed_float16")),
    *(("xla", dtype) for dtype in ("float32", "mixed_bfloat16")),
    names=("mode", "dtype"),
)
def test_same_as_keras(shape, axis, mode, dtype):
    theirs, ours = (
        built(shape, kind, axis=axis, dtype=dtype) for kind in (keras.layers.BatchNormalization, BatchNormalization)
    )
    dy = data(shape, 9)
    for seed in range(2):
        for expected, got in zip(
            *(trained(layer, data(shape, seed), dy, mode) for layer in (theirs, ours)), strict=True
        ):
            assert_close(expected, got, TOLERANCES[dtype])
    for expected, got in zip(statistics(theirs), statistics(ours), strict=True):
        assert_close(expected, got, 1e-5)
    x = keras.ops.convert_to_tensor(data(shape), ours.compute_dtype)
    expected, got = (layer(x, training=False) for layer in (theirs, ours))
    assert got.dtype == expected.dtype
    assert_close(expected, got, TOLERANCES[dtype])


@pytest.mark.tensorflow
@pytest.mark.parametrize("channels_first", [False, True])
def test_small_and_large_batches_at_run_time(channels_first):
    shape, axis = ((None, 16, 12), 1) if channels_first else ((None, 12, 16), -1)
    from kerasbn.serializable._kernels import tensorflow as kernels

    layers = [built(shape, kind, axis=axis) for kind in (keras.layers.BatchNormalization, BatchNormalization)]
    steps = [tf.function(lambda x, layer=layer: layer(x, training=True)) for layer in layers]
    signature = tf.TensorSpec(shape)
    for examples in (3, kernels._SMALL // (12 * 16), kernels._SMALL // (12 * 16) + 1):
        x = tf.constant(data((examples, *shape[1:])), "float32")
        assert_close(*(step.get_concrete_function(signature)(x) for step in steps), 1e-5)
    for expected, got in zip(*map(statistics, layers), strict=True):
        assert_close(expected, got, 1e-5)


@pytest.mark.tensorflow
@by_size
def test_xla_compiles_one_form_alone():
    layer = built((None, 3))
    step = tf.function(lambda x: layer(x, training=True), jit_compile=True, input_signature=[tf.TensorSpec((None, 3))])
    compiled = step.experimental_get_compiler_ir(tf.zeros((6, 3)))(stage="optimized_hlo")
    assert "HloModule" in compiled
    assert "conditional" not in compiled
    assert "batch-norm" not in compiled


@pytest.mark.tensorflow
def test_inference_where_the_channels_are_not_known_any_more():
    layer = built((4, 3), center=False, scale=False)
    function = tf.function(lambda x: layer(x, training=False), input_signature=[tf.TensorSpec((None, None))])
    x = data((4, 3))
    assert_close(layer(x, training=False), function(x), 1e-5)


@pytest.mark.parametrize("arguments", [{"center": False}, {"scale": False}, {"center": False, "scale": False}])
def test_without_gamma_or_beta(arguments):
    shape = (4, 3, 3, 2)
    theirs, ours = (built(shape, kind, **arguments) for kind in (keras.layers.BatchNormalization, BatchNormalization))
    for expected, got in zip(*(trained(layer, data(shape), data(shape, 1)) for layer in (theirs, ours)), strict=True):
        assert_close(expected, got, 1e-5)
    for expected, got in zip(*(layer(data(shape), training=False) for layer in (theirs, ours)), strict=True):
        assert_close(expected, got, 1e-5)


@by_mode(*MODES)
@pytest.mark.parametrize("masked", [False, True])
def test_renorm_as_keras(mode, masked):
    shape = (6, 4, 3)
    arguments = {"renorm": True, "renorm_clipping": {"rmin": 0.5, "rmax": 2.0, "dmax": 1.5}, "renorm_momentum": 0.7}
    theirs, ours = (built(shape, kind, **arguments) for kind in (keras.layers.BatchNormalization, BatchNormalization))
    mask = data(shape[:2], 3) > 0 if masked else None
    for expected, got in zip(
        *(trained(layer, data(shape), data(shape, 1), mode, mask) for layer in (theirs, ours)), strict=True
    ):
        assert_close(expected, got, 1e-4)
    for expected, got in zip(statistics(theirs), statistics(ours), strict=True):
        assert_close(expected, got, 1e-5)


def test_weights_load_both_ways():
    theirs = built((4, 3), keras.layers.BatchNormalization)
    ours = BatchNormalization()
    ours.build((4, 3))
    ours.set_weights(theirs.get_weights())
    assert [variable.name for variable in ours.weights] == [variable.name for variable in theirs.weights]
    back = keras.layers.BatchNormalization.from_config(
        {key: value for key, value in ours.get_config().items() if key in theirs.get_config()}
    )
    back.build((4, 3))
    back.set_weights(ours.get_weights())
    assert_close(theirs(data((4, 3))), back(data((4, 3))), 0)
    assert isinstance(ours, keras.layers.BatchNormalization)


# Gradients


@by_size
@by_shape
@by_mode(
    ("eager", WIDEST),
    ("graph", "float32"),
    ("xla", "float32"),
    ("open shapes", "float32"),
    names=("mode", "dtype"),
)
@pytest.mark.parametrize("arguments", [{}, {"mask": True}, {"group": 2}, {"group": 2, "mask": True}], ids=str)
def test_gradients(shape, axis, mode, dtype, arguments):
    mask, group, expected, exact = by_definition(shape, axis, **arguments)
    layer = built(shape, axis=axis, dtype=dtype, virtual_batch_size=group, epsilon=0.1)
    outputs, *got = trained(layer, data(shape), data(shape, 1), mode, mask)
    assert_close(expected, outputs, TOLERANCES[dtype])
    for one, other in zip(exact, got, strict=True):
        assert_close(one, other, 10 * TOLERANCES[dtype])


@functools.cache
def by_definition(shape, axis, mask=False, group=None):
    """A mask, the size of a group, the outputs, and the gradients by differences."""
    mask = np.arange(shape[0]) != 1 if mask else None
    layer = built(shape, axis=axis, dtype=WIDEST)
    arguments = {"axis": axis, "epsilon": 0.1, "mask": mask, "group": group}
    weights = layer.gamma.numpy(), layer.beta.numpy()
    outputs, _ = reference.batch_normalization(data(shape), *weights, **arguments)
    return mask, group, outputs, reference.gradients(data(shape), *weights, data(shape, 1), **arguments)


@by_mode(*MODES)
@pytest.mark.parametrize("options", [{}, {"synchronized": True}, {"virtual_batch_size": 3}], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_channels_over_decades(options, masked, mode):
    """By the definition, each channel within 1e-5 of what is largest in it."""
    shape, std = (7, 3, 4), np.array([1e-2, 1, 10, 1e3])
    values, mask = data(shape, mean=0, std=1), np.arange(3) < np.array([3, 1, 2, 3, 0, 3, 1])[:, None]
    x, dy = ((values + np.array([3, -3, 0.1, -5])) * std).astype("float32"), values + data(shape, 1, mean=1, std=1)
    mask = mask if masked else None
    layer = built(shape, momentum=0.0, **options)
    weights = layer.gamma.numpy(), layer.beta.numpy()
    arguments = {"mask": mask, "group": options.get("virtual_batch_size")}
    outputs, found = reference.batch_normalization(x, *weights, **arguments)
    exact = reference.gradients(x, *weights, dy, step=1e-4 * std, **arguments)
    got = trained(layer, x, dy, mode, mask)
    means, variances, counts = (np.array(each) for each in zip(*found, strict=True))
    pairs = [
        *zip([outputs, *exact], got, strict=True),
        (np.sum(means * counts, 0) / counts.sum(0), layer.moving_mean),
        (np.sum(variances * counts, 0) / counts.sum(0), layer.moving_variance),
    ]
    for expected, each in pairs:
        for channel in range(4):
            assert_close(expected[..., channel], array(each)[..., channel], 1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("activation", ["relu", "relu6", "elu", "leaky_relu", "tanh", "sigmoid"])
def test_between_a_convolution_and_an_activation(activation):
    """At inference TensorFlow makes one operation of the three, of some activations without having a kernel for it."""
    images = keras.Input((5, 5, 3))
    convolution = keras.layers.Conv2D(4, 3, use_bias=False)(images)
    model = keras.Model(images, keras.layers.Activation(activation)(BatchNormalization()(convolution)))
    x = data((2, 5, 5, 3)).astype("float32")
    np.testing.assert_allclose(tf.function(model)(x, training=False), model(x, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradients_at_inference(mode):
    shape = (3, 4, 2, 3)
    layer = built(shape)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=False)
        return tape.gradient(outputs, [x, layer.gamma.value, layer.beta.value])

    scale = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    dx, dgamma, dbeta = MODES[mode](step)(tf.constant(data(shape), "float32"))
    assert_close(np.broadcast_to(scale, shape), dx, 1e-5)
    normalized = (data(shape) - layer.moving_mean.numpy()) / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    assert_close(normalized.sum((0, 1, 2)), dgamma, 1e-4)
    assert_close(np.full(3, 24.0), dbeta, 1e-6)


@pytest.mark.tensorflow
@by_size
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivatives(mode, dtype):
    shape = (5, 3)
    layers = [built(shape, kind, dtype=dtype) for kind in (keras.layers.BatchNormalization, BatchNormalization)]

    def penalty(layer):
        def step(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(layer(x, training=True) ** 3)
                norm = tf.reduce_sum(tf.square(inner.gradient(loss, x)))
            return outer.gradient(norm, x)

        return MODES[mode](step)(tf.constant(data(shape), dtype))

    assert_close(*(penalty(layer) for layer in layers), 1e-3 if dtype == "float32" else 1e-6)


# Masks


@by_mode(*MODES)
@pytest.mark.parametrize("dtype", [WIDEST, "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("features", "axis"),
    [((3,), -1), ((2, 3), -1), ((2, 2, 3), -1), ((3, 2), 2)],
    ids=["rank 3", "rank 4", "5", "axis"],
)
def test_padded_sequences(features, axis, dtype, mode):
    """The same numbers and gradients as on what is left without the padding, joined."""
    lengths = (4, 1, 3)
    shape = (len(lengths), 5, *features)
    mask = np.arange(5) < np.array(lengths)[:, None]
    x, dy = data(shape), np.where(mask.reshape(3, 5, *(1 for _ in features)), data(shape, 1), 0)
    padded, joined = (
        built(shape_, axis=axis_, dtype=dtype) for shape_, axis_ in ((shape, axis), ((1, 8, *features), axis))
    )
    results = trained(padded, x, dy, mode, mask)
    expected = trained(joined, x[mask][None], dy[mask][None], mode)
    tolerance = TOLERANCES[dtype]
    assert_close(expected[0], results[0][mask][None], tolerance)
    assert_close(expected[1], results[1][mask][None], tolerance)
    assert np.all(results[1][~mask] == 0)
    for one, other in zip(expected[2:], results[2:], strict=True):
        assert_close(one, other, tolerance)
    for one, other in zip(statistics(joined), statistics(padded), strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e30])
def test_padding_may_hold_anything(padding):
    x = data((3, 5, 2))
    mask = np.arange(5) < np.array([4, 1, 3])[:, None]
    garbage = np.where(mask[..., None], x, padding)
    layers = [built(x.shape) for _ in range(2)]
    outputs = [array(layer(each, training=True, mask=mask)) for layer, each in zip(layers, (x, garbage), strict=True)]
    assert_close(outputs[0][mask], outputs[1][mask], 1e-6)
    for one, other in zip(*map(statistics, layers), strict=True):
        assert_close(one, other, 1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "mask", "spread"),
    [
        ((4, 5, 3), -1, (4,), (4, 1, 1)),
        ((4, 5, 3), -1, (4, 5), (4, 5, 1)),
        ((4, 5, 3), -1, (4, 1), (4, 1, 1)),
        ((4, 5, 3), -1, (4, 5, 1), (4, 5, 1)),
        ((4, 5, 3), -1, (4, 5, 3), (4, 5, 3)),
        ((4, 5, 2, 3), -1, (4, 5), (4, 5, 1, 1)),
        ((4, 5, 2, 3), -1, (4, 5, 2), (4, 5, 2, 1)),
        ((4, 5, 2, 2, 3), -1, (4, 5), (4, 5, 1, 1, 1)),
        ((4, 3, 5), 1, (4, 3), (4, 3, 1)),  # as Keras's Masking gives it
        ((4, 3, 5), 1, (4, 5), (4, 1, 5)),  # all axes but the channels'
        ((4, 3, 5), 1, (4, 1, 5), (4, 1, 5)),
        ((4, 3, 5, 2), 1, (4, 5), (4, 1, 5, 1)),
        ((4, 3, 5, 2), 1, (4, 5, 2), (4, 1, 5, 2)),
        ((4, 3, 5, 2), 1, (4,), (4, 1, 1, 1)),
        ((4, 3, 3), 1, (4, 3), (4, 3, 1)),  # both would fit: as Keras
        ((3, 5), 0, (3, 5), (3, 5)),
    ],
)
def test_masks_of_any_rank_and_axis(shape, axis, mask, spread):
    counts = data(mask, 5) > 1
    counts[0] = True
    layer = built(shape, axis=axis, momentum=0.0)
    layer(data(shape), training=True, mask=counts)
    mean, variance, _ = reference.moments(data(shape), np.broadcast_to(counts.reshape(spread), shape), axis)
    assert_close(mean.ravel(), layer.moving_mean, 1e-5)
    assert_close(variance.ravel(), layer.moving_variance, 1e-5)


def test_mask_that_does_not_fit():
    with pytest.raises(ValueError, match=r"mask must cover .*mask.shape=\(4, 7\), inputs.shape=\(4, 5, 3\), axis=2"):
        built((4, 5, 3))(data((4, 5, 3)), training=True, mask=np.ones((4, 7), bool))


def test_mask_of_a_model():
    inputs = keras.Input((5, 2))
    norm = BatchNormalization(momentum=0.0)
    model = keras.Model(inputs, norm(keras.layers.Masking()(inputs)))
    x = data((4, 5, 2))
    x[:, 3:] = 0
    model(x, training=True)
    assert_close(x[:, :3].mean((0, 1)), norm.moving_mean, 1e-5)


# Batches that say nothing

OPTIONS = {
    "default": {},
    "cumulative": {"momentum": None},
    "zero_debias": {"zero_debias": True},
    "unbiased": {"unbiased_variance": True},
    "ghosts": {"virtual_batch_size": 2, "zero_debias": True},
    "renorm": {"renorm": True, "zero_debias": True},
    "synchronized": {"synchronized": True},
}


@by_size
@by_mode("eager", "xla", "open shapes")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("batch", ["inf", "nan", "empty", "masked", "overflow"])
def test_batch_that_says_nothing_leaves_statistics_alone(batch, options, mode):
    layer = built((6, 4, 3), **options)
    layer(data((6, 4, 3)), training=True)
    before = statistics(layer)
    x = data((0 if batch == "empty" else 6, 4, 3))
    if batch in ("inf", "nan", "overflow"):
        x[1, 2, 1] = 1e30 if batch == "overflow" else float(batch)
    mask = np.zeros(x.shape[:2], bool) if batch == "masked" else None
    outputs, dx, dgamma, dbeta = trained(layer, x, np.ones_like(x), mode, mask)
    assert [each.tobytes() for each in statistics(layer)] == [each.tobytes() for each in before]
    assert outputs.shape == dx.shape == x.shape
    if batch in ("empty", "masked"):
        assert all(np.all(np.isfinite(each)) for each in (outputs, dx, dgamma, dbeta))


def test_channels_without_data_keep_their_statistics():
    layer = built((2, 3, 4), axis=1, momentum=None)
    before = statistics(layer)
    layer(data((2, 3, 4)), training=True, mask=np.array([[True, True, False]] * 2))
    after = statistics(layer)
    for one, other in zip(before, after, strict=True):
        assert one[2] == other[2]
        assert np.all(one[:2] != other[:2])
    assert list(layer.seen_batches.numpy()) == [1, 1, 0]


# Moving statistics of several batches at once


ACCUMULATING = {
    "momentum": {"momentum": 0.9},
    "debiased": {"momentum": 0.9, "zero_debias": True},
    "average": {"momentum": None},
    "unbiased": {"momentum": 0.9, "unbiased_variance": True},
    "ghosts": {"momentum": 0.9, "virtual_batch_size": 2},
    "ghosts, unbiased": {"momentum": 0.9, "virtual_batch_size": 2, "unbiased_variance": True},
    "renorm": {"momentum": 0.9, "renorm": True},
}
OF_SEVERAL = ("accumulated_mean", "accumulated_variance", "accumulated_count", "accumulated_batches")


@by_mode("eager", "xla")
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("options", ACCUMULATING.values(), ids=ACCUMULATING)
def test_several_batches_count_as_one(options, masked, mode):
    whole, parts = built((24, 3, 2), **options), built((24, 3, 2), **options, accumulate=3)
    for variable in parts.weights:
        if variable.name in OF_SEVERAL:
            variable.assign(np.zeros(variable.shape))
    run = MODES[mode](lambda layer, x, mask: layer(x, training=True, mask=mask))
    runs = {layer: MODES[mode](functools.partial(run, layer)) for layer in (whole, parts)}
    mask = data((24, 3)) > 1
    for step in range(2):
        x = data((24, 3, 2), seed=step).astype("float32")
        before = statistics(parts)
        batches = [slice(0, 8), slice(8, 12), slice(12, 24)]
        for number, batch in enumerate(batches):
            given = keras.ops.convert_to_tensor(mask[batch]) if masked else None
            runs[parts](keras.ops.convert_to_tensor(x[batch]), given)
            if number < 2:
                moving = len(statistics(whole))
                assert [each.tobytes() for each in statistics(parts)[:moving]] == [
                    each.tobytes() for each in before[:moving]
                ]
        runs[whole](keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(mask) if masked else None)
        for expected, got in zip(statistics(whole), statistics(parts), strict=False):
            assert_close(expected, got, 1e-5)
        assert not any(np.any(variable) for variable in parts.weights if variable.name in OF_SEVERAL)


def test_a_batch_that_says_nothing_counts_for_nothing_among_several():
    parts, one = (BatchNormalization(momentum=None, accumulate=count) for count in (3, 1))
    x = data((8, 4)).astype("float32")
    for batch in (x, np.full_like(x, np.nan), x[:0]):
        parts(batch, training=True)
    one(x, training=True)
    for name in ("moving_mean", "moving_variance", "seen_batches"):
        assert_close(getattr(one, name), getattr(parts, name), 1e-6)


def test_each_batch_is_normalized_by_itself():
    x = data((8, 4)).astype("float32")
    for batch in (x, 3 * x + 1):
        assert_close(built((8, 4))(batch, training=True), built((8, 4), accumulate=2)(batch, training=True), 0)


def test_a_model_saved_in_the_midst_of_several_batches(tmp_path):
    model = keras.Sequential([keras.Input((4,)), BatchNormalization(accumulate=3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3), "mse")
    x, y = data((40, 4)).astype("float32"), data((40, 1)).astype("float32")
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert float(model.layers[0].accumulated_batches.numpy()) == 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for one, other in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, other)


# The moving statistics


def batches(count=100, size=2, channels=400):
    return np.random.default_rng(0).normal(10, 3, size=(count, size, channels)).astype("float32")


def test_right_after_a_hundred_small_batches():
    layer = BatchNormalization(momentum=0.99, unbiased_variance=True, zero_debias=True)
    for batch in batches():
        layer(batch, training=True)
    assert abs(np.mean(layer.moving_mean) / 10 - 1) < 0.03
    assert abs(np.mean(layer.moving_variance) / 9 - 1) < 0.1


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99, None])
@pytest.mark.parametrize("zero_debias", [False, True])
@pytest.mark.parametrize("unbiased_variance", [False, True])
def test_averages_by_their_definition(momentum, zero_debias, unbiased_variance):
    layer = BatchNormalization(momentum=momentum, zero_debias=zero_debias, unbiased_variance=unbiased_variance)
    given = batches(20, 4, 3)
    for step, batch in enumerate(given):
        layer(batch, training=True)
        found = [
            (each.mean(0), each.astype("float64").var(0, ddof=int(unbiased_variance))) for each in given[: step + 1]
        ]
        if momentum is None:
            expected = np.mean(found, axis=0)
        else:
            weights = (1 - momentum) * momentum ** np.arange(step, -1, -1.0)
            expected = np.tensordot(weights, np.array(found), 1)
            if zero_debias:
                expected /= 1 - momentum ** (step + 1)
            else:
                expected[1] += momentum ** (step + 1)  # from its start, 1
        assert_close(expected, [layer.moving_mean, layer.moving_variance], 1e-5)


@by_size
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
@by_mode("eager", "graph", "xla")
def test_one_value_a_channel(shape, mode):
    biased, unbiased = built(shape, momentum=0.0), built(shape, momentum=0.0, unbiased_variance=True)
    before = statistics(unbiased)
    for layer in (biased, unbiased):
        outputs, *gradients = trained(layer, data(shape), data(shape, 1), mode)
        assert_close(layer.beta.numpy().reshape(shape), outputs, 1e-6)
        assert all(np.all(np.isfinite(each)) for each in gradients)
    assert_close(data(shape).ravel(), biased.moving_mean, 1e-6)
    assert np.all(biased.moving_variance.numpy() == 0)
    assert [each.tobytes() for each in statistics(unbiased)] == [each.tobytes() for each in before]


@pytest.mark.parametrize("mean_and_std", [(1000.0, 1e-3), (-1000.0, 1.0), (0.0, 1e-4), (1e-3, 1e3)], ids=str)
@pytest.mark.parametrize("shape", [(512, 4), (8, 32, 32, 4)], ids=str)
@pytest.mark.parametrize("options", [{}, {"virtual_batch_size": 4}, {"synchronized": True}, {"mask": True}], ids=str)
@by_mode("eager", "xla")
def test_variance_is_sound(mean_and_std, shape, options, mode):
    mean, std = mean_and_std
    x = data(shape, mean=mean, std=std).astype("float32")
    mask = np.arange(shape[0]) < shape[0] // 2 if "mask" in options else None
    layer = BatchNormalization(momentum=0.0, **{key: value for key, value in options.items() if key != "mask"})
    layer.build(shape)
    trained(layer, x, x, mode, mask)
    _, found = reference.batch_normalization(
        x, np.ones(4), np.zeros(4), mask=mask, group=options.get("virtual_batch_size")
    )
    expected = np.mean([variance for _, variance, _ in found], axis=0)
    # The mean is off by half a unit in its last place at least, and the variance by the square of that.
    floor = (4 * np.spacing(np.float32(abs(mean)))) ** 2
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=1e-4, atol=floor)


# Ghost batches


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from(list(MODES)))
def test_ghost_batches(examples, size, mode):
    layer = built((examples, 2, 3), virtual_batch_size=size, momentum=0.0)
    x = data((examples, 2, 3))
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    outputs, *_ = trained(layer, x, x, mode)
    expected, found = reference.batch_normalization(x, gamma, beta, group=size)
    assert_close(expected, outputs, 2e-5)
    means, variances, counts = (np.array(each) for each in zip(*found, strict=True))
    assert_close(np.average(means, 0, counts), layer.moving_mean, 1e-5)
    assert_close(np.average(variances, 0, counts), layer.moving_variance, 1e-5)
    assert_close(built((4, 2, 3))(x, training=False), built((4, 2, 3), virtual_batch_size=size)(x, training=False), 0)


def test_unbiased_variance_of_ghost_batches_leaves_single_values_out():
    layer = built((5, 3), virtual_batch_size=2, unbiased_variance=True, momentum=0.0)
    x = data((5, 3))
    layer(x, training=True)
    assert_close(np.mean([x[:2].var(0, ddof=1), x[2:4].var(0, ddof=1)], 0), layer.moving_variance, 1e-5)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.5}, r"`momentum` must be from 0 to 1 \(or None.*momentum=1.5"),
        ({"momentum": -0.1}, "`momentum` must be from 0 to 1.*momentum=-0.1"),
        ({"momentum": float("nan")}, "`momentum` must be from 0 to 1.*momentum=nan"),
        ({"renorm_momentum": 2}, "`renorm_momentum` must be from 0 to 1.*renorm_momentum=2"),
        ({"epsilon": -1e-3}, "`epsilon` must be a number of at least 0.*epsilon=-0.001"),
        ({"epsilon": float("inf")}, "`epsilon` must be a number of at least 0.*epsilon=inf"),
        ({"virtual_batch_size": 0}, "`virtual_batch_size` must be a positive integer.*virtual_batch_size=0"),
        ({"virtual_batch_size": 2.5}, "`virtual_batch_size` must be a positive integer.*virtual_batch_size=2.5"),
        ({"virtual_batch_size": True}, "`virtual_batch_size` must be a positive integer.*virtual_batch_size=True"),
        ({"accumulate": 0}, "`accumulate` must be a positive integer"),
        ({"virtual_batch_size": 4, "renorm": True}, "`virtual_batch_size` and `renorm` exclude each other"),
        ({"virtual_batch_size": 4, "synchronized": True}, "`virtual_batch_size` and `synchronized` exclude"),
        ({"zero_debias": True, "momentum": 1.0}, "`zero_debias` needs a `momentum` below 1"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchNormalization(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"axis": 3}, (None, 4, 3), r"`axis` must be an axis of the inputs.*axis=3, input_shape=\(None, 4, 3\)"),
        ({"axis": 1}, (None, None, 3), "`axis` must be an axis of the inputs whose size is known"),
        ({"axis": 0, "virtual_batch_size": 2}, (4, 3), "`virtual_batch_size` splits up axis 0"),
    ],
)
def test_inputs_that_do_not_fit(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        BatchNormalization(**arguments).build(shape)


def test_configuration():
    arguments = {
        "axis": 1,
        "momentum": None,
        "epsilon": 1e-2,
        "virtual_batch_size": 8,
        "unbiased_variance": True,
        "zero_debias": True,
        "gamma_regularizer": "l2",
    }
    layer = BatchNormalization(**arguments)
    twin = BatchNormalization.from_config(json.loads(json.dumps(layer.get_config())))
    assert twin.get_config() == layer.get_config()
    assert {key: layer.get_config()[key] for key in list(arguments)[:-1]} == dict(list(arguments.items())[:-1])
    defaults = keras.layers.BatchNormalization(name="bn").get_config()
    assert {**BatchNormalization(name="bn").get_config(), **defaults} == BatchNormalization(name="bn").get_config()


def test_counter_only_where_it_is_needed():
    for arguments, counted in (({}, False), ({"momentum": None}, True), ({"zero_debias": True}, True)):
        layer = BatchNormalization(**arguments)
        layer.build((None, 3))
        assert [variable.name for variable in layer.weights] == [
            *("gamma", "beta", "moving_mean", "moving_variance"),
            *(["seen_batches"] if counted else []),
        ]


def test_integers_and_frozen_layers():
    layer = built((4, 3))
    before = statistics(layer)
    layer.trainable = False
    assert_close(layer(data((4, 3))), layer(data((4, 3)), training=True), 0)
    assert [each.tobytes() for each in statistics(layer)] == [each.tobytes() for each in before]
    assert keras.backend.standardize_dtype(layer(np.arange(12).reshape(4, 3)).dtype) == "float32"


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_fit_save_and_load(tmp_path, policy, jit_compile):
    options = {"momentum": None, "virtual_batch_size": 5, "dtype": policy}
    layers = [
        keras.layers.Conv2D(4, 3, dtype=policy),
        BatchNormalization(**options),
        keras.layers.Flatten(dtype=policy),
    ]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers, keras.layers.Dense(1, dtype="float32")])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(data((22, 6, 6, 1)), data((22, 1)), batch_size=8, verbose=0)  # the last batch is smaller
    assert list(model.layers[1].seen_batches.numpy()) == [3] * 4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(model(data((3, 6, 6, 1))), loaded(data((3, 6, 6, 1))), 0)
