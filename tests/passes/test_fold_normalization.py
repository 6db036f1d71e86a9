"""Where batch normalization is folded to, what it passes through, and why it stays."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from kerasbn.graph.read import read
from kerasbn.layers import BatchNormalization
from tests.helpers import assert_same_function, inference, names, random_inputs, randomize, snapshot

BN = L.BatchNormalization


def _plan(model):
    return kerasbn.plan(model, position="none", dropout="none", fold=True, merge_branches=False)


def _chain(shape, *layers):
    return randomize(keras.Sequential([keras.Input(shape), *layers]))


def _functional(shape, body):
    inputs = keras.Input(shape, name="in")
    return randomize(keras.Model(inputs, body(inputs)))


def _positive(model):
    """Make every scale of batch normalization positive."""
    for layer in _normalizations(model):
        layer.gamma.assign(keras.ops.abs(layer.gamma))
    return model


def _centered(model):
    """Take every shift of batch normalization out."""
    for layer in _normalizations(model):
        layer.beta.assign(layer.beta * 0)
        layer.moving_mean.assign(layer.moving_mean * 0)
    return model


def _normalizations(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, BN)]


def _assert_folds(model, left=0, tolerance=1e-5):
    before = snapshot(model)
    plan = _plan(model)
    folded = plan.apply()
    assert_same_function(model, folded, tolerance=tolerance)
    assert snapshot(model) == before
    assert len(_normalizations(folded)) == left
    calls = [site.address for site in read(model).walk() if isinstance(site.operation, BN)]
    assert sorted(calls) == sorted(change.site for change in (*plan.edits, *plan.skips))
    return folded


# What commutes, between a linear layer ahead and one behind. Each is passed backward and forward.

THROUGH = {
    "dropout": ((6,), lambda: [L.Dropout(0.5)]),
    "noise": ((6,), lambda: [L.GaussianNoise(1.0), L.GaussianDropout(0.5), L.AlphaDropout(0.5)]),
    "spatial dropout": ((5, 6), lambda: [L.SpatialDropout1D(0.5)]),
    "identity": ((6,), lambda: [L.Identity(), L.Activation("linear"), L.ActivityRegularization(0.1)]),
    "reshape": ((4, 6), lambda: [L.Reshape((2, 2, 6))]),
    "permute": ((4, 6), lambda: [L.Permute((2, 1)), L.Permute((2, 1))]),
    "cropping": ((5, 6, 4), lambda: [L.Cropping2D(((1, 0), (2, 1)))]),
    "cropping 1D": ((7, 4), lambda: [L.Cropping1D((1, 2))]),
    "cropping 3D": ((4, 5, 6, 2), lambda: [L.Cropping3D(1)]),
    **{
        f"upsampling, {kind}": ((5, 4, 3), lambda kind=kind: [L.UpSampling2D((2, 3), interpolation=kind)])
        for kind in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
    },
    "upsampling 1D": ((5, 3), lambda: [L.UpSampling1D(2)]),
    "upsampling 3D": ((3, 2, 2, 3), lambda: [L.UpSampling3D(2)]),
    "average pooling": ((6, 5, 3), lambda: [L.AveragePooling2D(2)]),
    "padded average pooling": ((6, 5, 3), lambda: [L.AveragePooling2D(3, strides=2, padding="same")]),
    "padded average pooling 1D": ((7, 3), lambda: [L.AveragePooling1D(3, strides=2, padding="same")]),
    "padded average pooling 3D": ((4, 5, 3, 2), lambda: [L.AveragePooling3D(2, padding="same")]),
    "global average pooling": ((6, 5, 3), lambda: [L.GlobalAveragePooling2D()]),
    "global average pooling, axes kept": ((6, 5, 3), lambda: [L.GlobalAveragePooling2D(keepdims=True)]),
    "thinning": ((6, 5, 3), lambda: [L.MaxPooling2D(1, strides=2)]),
}
THROUGH_IF_POSITIVE = {
    "max pooling": ((6, 5, 3), lambda: [L.MaxPooling2D(2)]),
    "padded max pooling": ((6, 5, 3), lambda: [L.MaxPooling2D(3, strides=2, padding="same")]),
    "padded max pooling 1D": ((7, 3), lambda: [L.MaxPooling1D(3, strides=2, padding="same")]),
    "global max pooling": ((7, 3), lambda: [L.GlobalMaxPooling1D()]),
}
THROUGH_IF_CENTERED = {
    "zero padding": ((4, 5, 3), lambda: [L.ZeroPadding2D(((1, 0), (2, 1)))]),
    "zero padding 1D": ((7, 3), lambda: [L.ZeroPadding1D((1, 2))]),
    "zero padding 3D": ((3, 4, 2, 3), lambda: [L.ZeroPadding3D(1)]),
}
THROUGH_IF_BOTH = {
    "relu": ((6,), lambda: [L.ReLU()]),
    "relu, by name": ((6,), lambda: [L.Activation("relu")]),
    "leaky relu": ((6,), lambda: [L.LeakyReLU(0.3), L.ReLU(negative_slope=0.1)]),
    "prelu": ((6,), lambda: [L.PReLU()]),
}
CASES = [
    (name, prepare)
    for table, prepare in (
        (THROUGH, lambda model: model),
        (THROUGH_IF_POSITIVE, _positive),
        (THROUGH_IF_CENTERED, _centered),
        (THROUGH_IF_BOTH, lambda model: _positive(_centered(model))),
    )
    for name in table
]
ALL_THROUGH = {**THROUGH, **THROUGH_IF_POSITIVE, **THROUGH_IF_CENTERED, **THROUGH_IF_BOTH}
IDS = [name for name, _ in CASES]


@pytest.mark.parametrize(("name", "prepare"), CASES, ids=IDS)
def test_backward_through(name, prepare):
    shape, between = ALL_THROUGH[name]
    model = prepare(_chain(shape, L.Dense(shape[-1], name="taker"), *between(), BN(name="bn"), L.Activation("tanh")))
    folded = _assert_folds(model, tolerance=2e-5)
    assert folded.get_layer("taker").get_weights()[0].tolist() != model.get_layer("taker").get_weights()[0].tolist()


@pytest.mark.parametrize(("name", "prepare"), CASES, ids=IDS)
def test_forward_through(name, prepare):
    shape, between = ALL_THROUGH[name]
    model = prepare(_chain(shape, L.Activation("tanh"), BN(name="bn"), *between(), L.Dense(4, name="taker")))
    _assert_folds(model, tolerance=2e-5)


@pytest.mark.parametrize("name", THROUGH_IF_POSITIVE)
def test_a_negative_scale_and_maxima(name):
    shape, between = ALL_THROUGH[name]
    ahead = _chain(shape, L.Activation("tanh"), BN(name="bn"), *between(), L.Dense(4))
    behind = _chain(shape, L.Dense(shape[-1]), *between(), BN(name="bn"), L.Activation("tanh"))
    for model in (ahead, behind):
        _assert_stays(model, Reason.NEGATIVE_SCALE)


@pytest.mark.parametrize("name", THROUGH_IF_CENTERED)
def test_a_shift_and_zeros(name):
    shape, between = ALL_THROUGH[name]
    ahead = _chain(shape, L.Activation("tanh"), BN(name="bn"), *between(), L.Dense(4))
    behind = _chain(shape, L.Dense(shape[-1]), *between(), BN(name="bn"), L.Activation("tanh"))
    for model in (ahead, behind):
        _assert_stays(model, Reason.ZERO_PADDING)


@pytest.mark.parametrize("name", THROUGH_IF_BOTH)
def test_a_negative_scale_and_relu(name):
    shape, between = ALL_THROUGH[name]
    _assert_stays(
        _centered(_chain(shape, L.Dense(shape[-1]), *between(), BN(name="bn"), L.Activation("tanh"))),
        Reason.NEGATIVE_SCALE,
    )


def test_flatten():
    model = _chain((4, 3, 5), L.Activation("tanh"), BN(), L.Flatten(), L.Dense(4))
    _assert_folds(model)
    model = _chain((4, 3, 5), L.Activation("tanh"), BN(axis=1), L.Flatten("channels_first"), L.Dense(4))
    _assert_folds(model)
    model = _chain((4, 3), L.EinsumDense("abc,cde->abde", (4, 2, 3)), L.Flatten(), L.Reshape((4, 2, 3)), BN())
    assert isinstance(_assert_folds(model).layers[-1], L.Identity)


CHANNELS_FIRST = {
    "zero padding": (lambda **kw: L.ZeroPadding2D(((1, 0), (2, 1)), **kw), _centered),
    "cropping": (lambda **kw: L.Cropping2D(((1, 0), (2, 1)), **kw), lambda model: model),
    "upsampling": (lambda **kw: L.UpSampling2D((1, 3), **kw), lambda model: model),
    "global average pooling": (lambda **kw: L.GlobalAveragePooling2D(keepdims=True, **kw), lambda model: model),
    "global max pooling": (lambda **kw: L.GlobalMaxPooling2D(keepdims=True, **kw), _positive),
}


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_channels_first(name):
    make, prepare = CHANNELS_FIRST[name]

    def mix(shape):
        return L.EinsumDense("abcd,be->aecd", shape[1:])

    shape = (None, 3, 5, 4)
    between = make(data_format="channels_first")
    behind = mix(between.compute_output_shape(shape))
    _assert_folds(prepare(_chain(shape[1:], L.Activation("tanh"), BN(axis=1), between, behind)))
    between = make(data_format="channels_first")
    _assert_folds(prepare(_chain(shape[1:], mix(shape), between, BN(axis=1), L.Activation("tanh"))))


def test_an_explicit_mask():
    steps, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    y = L.ReLU()(BN()(L.Dense(4)(steps), mask=mask))
    model = randomize(keras.Model([steps, mask], L.Dense(2)(y)))
    folded = kerasbn.fold(model)
    assert not _normalizations(folded)
    inputs = [np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32"), np.ones((2, 5), bool)]
    assert_same_function(model, folded, inputs)


def test_masked_means():
    steps = keras.Input((5,), dtype="int32")
    x = L.Activation("tanh")(L.Embedding(7, 4, mask_zero=True)(steps))
    model = randomize(keras.Model(steps, L.Dense(3)(L.GlobalAveragePooling1D()(BN()(x)))))
    inputs = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0], [1, 1, 1, 1, 1]])
    folded = kerasbn.fold(model)
    assert_same_function(model, folded, inputs)
    assert not _normalizations(folded)


OPERATIONS = {
    "reshape": lambda x: keras.ops.reshape(x, (-1, 2, 2, 6)),
    "transpose": lambda x: keras.ops.transpose(keras.ops.transpose(x, (0, 2, 1)), (0, -1, 1)),
    "squeeze": lambda x: keras.ops.squeeze(keras.ops.expand_dims(x, 2), 2),
    "average pool": lambda x: keras.ops.average_pool(x, 2, 1, padding="same", data_format="channels_last"),
    "thinning": lambda x: keras.ops.max_pool(x, 1, 2),
    "mean": lambda x: keras.ops.mean(x, axis=1),
    "mean, axes kept": lambda x: keras.ops.mean(x, axis=-2, keepdims=True),
    "stop gradient": keras.ops.stop_gradient,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    operation = OPERATIONS[name]
    _assert_folds(_functional((4, 6), lambda x: L.Dense(3)(operation(BN()(L.Activation("tanh")(x))))))
    _assert_folds(_functional((4, 6), lambda x: L.Activation("tanh")(BN()(operation(L.Dense(6)(x))))))


def test_operations_that_act_like_relu():
    for relu in (keras.ops.relu, keras.ops.leaky_relu, keras.activations.relu):
        model = _positive(
            _centered(_functional((6,), lambda x, relu=relu: L.Activation("tanh")(BN()(relu(L.Dense(6)(x))))))
        )
        _assert_folds(model)


def test_padding_as_an_operation():
    def body(x):
        return L.Activation("tanh")(BN(name="bn")(keras.ops.pad(L.Dense(6)(x), ((0, 0), (1, 1), (0, 0)))))

    _assert_folds(_centered(_functional((4, 6), body)))
    _assert_stays(_functional((4, 6), body), Reason.ZERO_PADDING)


# Branches


def _two(merge):
    return lambda x: L.Activation("tanh")(BN(name="bn")(merge(L.Dense(4)(x), L.Dense(4, use_bias=False)(x))))


MERGES = {
    "add": _two(lambda a, b: L.Add()([a, b])),
    "plus": _two(lambda a, b: a + b),
    "subtract": _two(lambda a, b: L.Subtract()([a, b])),
    "minus": _two(lambda a, b: a - b),
    "average": _two(lambda a, b: L.Average()([a, b])),
    "concatenate": _two(lambda a, b: L.Concatenate()([a, b])),
    "concatenate operation": _two(lambda a, b: keras.ops.concatenate([a, b], axis=-1)),
}


@pytest.mark.parametrize("name", MERGES)
def test_backward_into_every_branch(name):
    _assert_folds(_functional((5,), MERGES[name]))


def test_backward_into_branches_of_maxima():
    for merge in (L.Maximum, L.Minimum):
        body = _two(lambda a, b, merge=merge: merge()([a, b]))
        _assert_folds(_positive(_functional((5,), body)))
        _assert_stays(_functional((5,), body), Reason.NEGATIVE_SCALE)


def test_concatenate_along_places():
    def body(x):
        return L.Activation("tanh")(BN()(L.Concatenate(axis=1)([L.Dense(4)(x), L.Dense(4)(x)])))

    _assert_folds(_functional((3, 5), body))


@pytest.mark.parametrize(
    "unable",
    [
        lambda x: L.Dense(4, activation="relu")(x),
        lambda x: L.ReLU()(L.Dense(4)(x)),
        lambda x: L.ZeroPadding1D(1)(L.Cropping1D(1)(L.Dense(4)(x))),
        lambda x: keras.ops.pad(L.Cropping1D(1)(L.Dense(4)(x)), ((0, 0), (1, 1), (0, 0))),
        lambda x: L.Dropout(0.5)(L.Add()([L.ReLU()(L.Dense(4)(x)), L.ReLU()(L.Dense(4)(x))])),
    ],
    ids=["activation", "relu", "zero padding", "pad", "a sum of such"],
)
@pytest.mark.parametrize(
    "able",
    [
        lambda x: L.Dropout(0.5)(L.Dense(4)(x)),
        lambda x: L.Add()([L.ReLU()(L.Dense(4)(x)), L.Dense(4)(x)]),
    ],
    ids=["linear", "a sum with such"],
)
def test_a_sum_gives_its_shift_to_a_branch_that_can_take_it(unable, able):
    def body(x):
        return L.Activation("tanh")(BN()(L.Add()([unable(x), able(x)])))

    _assert_folds(_positive(_functional((6, 5), body)))


@pytest.mark.parametrize(("width", "left"), [(4, 1), (5, 0)])
def test_a_branch_spread_over_places_that_a_batch_of_one_would_make_a_bias(width, left):
    wide, narrow = keras.Input((4, 3, width)), keras.Input((4, 1, 1))
    mixed = [L.EinsumDense("abcd,be->aecd", each.shape[1:])(each) for each in (wide, narrow)]
    y = L.Activation("tanh")(BN(axis=1)(L.Add()(mixed)))
    model = _centered(randomize(keras.Model([wide, narrow], y)))
    assert_same_function(model, _assert_folds(model, left), random_inputs(model, batch=1))


def test_scales_alone_need_no_bias():
    def body(x):
        return L.Activation("tanh")(BN(axis=1)(L.EinsumDense("abc,bd->adc", (4, 4))(x)))

    _assert_folds(_centered(_functional((4, 4), body)))


def test_forward_past_a_concatenation():
    def body(x):
        return L.Dense(3)(L.Concatenate()([x, BN(name="bn")(L.Activation("tanh")(x)), BN()(L.Activation("relu")(x))]))

    _assert_folds(_functional((5,), body))


def test_forward_into_several_users():
    def body(x):
        y = BN(name="bn")(L.Activation("tanh")(x))
        return [L.Dense(3)(y), L.Dropout(0.5)(L.Dense(2)(L.Dropout(0.5)(y)))]

    _assert_folds(_functional((5,), body))


def test_forward_past_a_sum_whose_branches_are_scaled_alike():
    def body(x):
        y = BN(name="bn")(L.Activation("tanh")(x))
        return L.Dense(3)(L.Add()([L.Dropout(0.5)(y), L.Identity()(y)]))

    _assert_folds(_functional((5,), body))


def test_normalizations_in_a_row_become_one():
    model = _chain(
        (4,),
        L.Activation("tanh"),
        BN(),
        BN(scale=False, center=False),
        L.Dropout(0.1),
        BatchNormalization(),
        L.Softmax(),
    )
    folded = _assert_folds(model, left=1)
    (kept,) = _normalizations(folded)
    assert kept.scale
    assert kept.center


def test_normalizations_in_a_row_all_go():
    _assert_folds(
        _chain((4,), L.Activation("tanh"), BN(), BN(axis=1), L.Dense(3, activation="relu"), BN(), BN(), L.Dense(2))
    )


# Layers and models that are called several times


def test_a_shared_block():
    dense, norm = L.Dense(4, name="taker"), BN(name="bn")

    def body(x):
        return L.Add()([L.ReLU()(norm(dense(x))), L.ReLU()(norm(dense(L.Activation("tanh")(x))))])

    _assert_folds(_functional((4,), body))


def test_a_shared_layer_with_equal_normalizations():
    dense = L.Dense(4, name="taker")
    first, second = BN(name="first"), BN(name="second")

    def body(x):
        return L.Add()([L.ReLU()(first(dense(x))), L.ReLU()(second(dense(L.Activation("tanh")(x))))])

    model = _functional((4,), body)
    assert {skip.reason for skip in _plan(model).skips} == {Reason.SHARED_LAYER}
    second.set_weights(first.get_weights())
    _assert_folds(model)


def test_a_shared_layer_with_equal_normalizations_further_on():
    def behind(x):
        dense = L.Dense(4)
        return L.Add()([L.ReLU()(BN()(L.Dropout(0.5)(dense(each)))) for each in (x, L.Activation("tanh")(x))])

    def ahead(x):
        dense = L.Dense(4)
        return L.Add()([dense(L.Dropout(0.5)(BN()(each))) for each in (L.ReLU()(x), L.Activation("tanh")(x))])

    for body in (behind, ahead):
        model = _functional((4,), body)
        first, second = _normalizations(model)
        second.set_weights(first.get_weights())
        _assert_folds(model)


def test_a_shared_normalization_ahead():
    dense, norm = L.Dense(4, name="taker"), BN(name="bn")

    def body(x):
        return L.Add()([dense(norm(L.ReLU()(x))), dense(norm(L.Activation("tanh")(x)))])

    _assert_folds(_functional((4,), body))


def test_one_call_of_a_normalization_goes_and_the_other_stays():
    norm = BN(name="bn")

    def body(x):
        return L.Add()([L.ReLU()(norm(L.Dense(4)(x))), L.ReLU()(norm(L.Activation("tanh")(x)))])

    model = _functional((4,), body)
    plan = _plan(model)
    assert [edit.site for edit in plan.edits] == ["bn#0"]
    assert [skip.site for skip in plan.skips] == ["bn#1"]
    assert_same_function(model, plan.apply())


def _block(functional, last=None):
    layers = [L.Dense(4, name="dense"), BN(name="bn"), *([] if last is None else [last])]
    if not functional:
        return keras.Sequential([keras.Input((4,)), *layers], name="block")
    inputs = value = keras.Input((4,))
    for layer in layers:
        value = layer(value)
    return keras.Model(inputs, value, name="block")


@pytest.mark.parametrize("functional", [False, True])
def test_a_model_inside_that_is_called_twice(functional):
    block = _block(functional, L.ReLU())
    model = _functional((4,), lambda x: L.Add()([block(x), block(L.Activation("tanh")(x))]))
    folded = _assert_folds(model)
    assert type(folded.get_layer("block")) is type(block)
    assert names(folded.get_layer("block")).split()[-2:] == ["dense", block.layers[-1].name]


def test_a_model_inside_ends_with_it():
    block = _block(functional=True)
    model = _functional((4,), lambda x: L.Dense(3)(L.Activation("tanh")(block(x))))
    folded = _assert_folds(model)
    assert folded.get_layer("block").output_names == block.output_names == ["bn"]


def test_across_the_bounds_of_a_model_inside():
    inside = keras.Sequential([keras.Input((4,)), L.Activation("tanh"), L.Dense(4)], name="inside")
    _assert_folds(_functional((4,), lambda x: L.Softmax()(BN()(inside(x)))))
    other = keras.Sequential([keras.Input((4,)), BN(name="bn")], name="other")
    folded = _assert_folds(_functional((4,), lambda x: L.Softmax()(L.Dense(2)(other(L.Activation("tanh")(x))))))
    assert names(folded.get_layer("other")) == "bn"


def test_a_model_inside_that_is_called_on_its_own_outcome():
    inside = keras.Sequential([keras.Input((4,)), BN(name="bn"), L.Dropout(0.5)], name="inside")
    _assert_folds(_functional((4,), lambda x: L.Dense(3)(inside(inside(L.Activation("tanh")(x))))))
    _assert_folds(_functional((4,), lambda x: L.Softmax()(inside(inside(L.Dense(4)(x))))))


def test_two_calls_of_a_model_inside_with_different_normalizations_behind():
    inside = keras.Sequential([keras.Input((4,)), L.Dense(4)], name="inside")

    def body(x):
        return L.Add()([L.ReLU()(BN(name="bn")(inside(x))), L.ReLU()(BN()(inside(L.Activation("tanh")(x))))])

    _assert_stays(_functional((4,), body), Reason.SHARED_LAYER)


def test_rewritten_and_folded():
    dense = L.Dense(4, activation="relu", name="dense")
    model = _functional((4,), lambda x: L.Dense(2)(L.Add()([dense(x), dense(L.Activation("tanh")(x))])))
    rewritten = kerasbn.rewrite(model)
    assert len(_normalizations(rewritten)) == 2
    _assert_folds(rewritten)
    assert_same_function(model, kerasbn.fold(rewritten))


# What stays, and why


def _assert_stays(model, reason):
    plan = _plan(model)
    assert {skip.site: skip.reason for skip in plan.skips if "bn" in skip.site}["bn#0"] is reason, plan
    assert_same_function(model, plan.apply())


class Subclass(BN):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) * 2


def _shared(x):
    dense = L.Dense(4)
    return [L.ReLU()(BN(name="bn")(dense(x))), L.ReLU()(dense(L.Activation("tanh")(x)))]


def _second_consumer(x):
    y = L.Conv1D(4, 3, padding="same")(x)
    return L.Add()([y, L.ReLU()(BN(name="bn")(y))])


def _twice(merge):
    def body(x):
        y = L.Dense(4)(x)
        return L.ReLU()(BN(name="bn")(merge()([y, y])))

    return body


def _output_ahead(x):
    y = L.Dense(4)(x)
    return [y, L.ReLU()(BN(name="bn")(y))]


def _other_branch(x):
    return L.Dense(2)(L.Add()([BN(name="bn")(L.Activation("tanh")(x)), x]))


def _one_user_cannot(x):
    y = BN(name="bn")(L.Activation("tanh")(x))
    return [L.Dense(2)(y), L.Conv1D(2, 3, padding="same")(y)]


def _lora(x):
    dense = L.Dense(4)
    y = dense(x)
    dense.enable_lora(2)
    return L.ReLU()(BN(name="bn")(y))


STAYS = {
    "shared layer": ((4,), _shared, Reason.SHARED_LAYER),
    "second consumer": ((5, 4), _second_consumer, Reason.OTHER_CONSUMERS),
    "twice in a sum": ((4,), _twice(L.Add), Reason.OTHER_CONSUMERS),
    "twice in a concatenation": ((4,), _twice(L.Concatenate), Reason.OTHER_CONSUMERS),
    "output ahead": ((4,), _output_ahead, Reason.OUTPUT),
    "output behind": ((4,), lambda x: BN(name="bn")(L.Activation("tanh")(x)), Reason.OUTPUT),
    "wrong axis": ((5, 4), lambda x: L.ReLU()(BN(axis=1, name="bn")(L.Dense(4)(x))), Reason.CHANNEL_AXIS),
    "statistics by place": (
        (5, 4),
        lambda x: L.ReLU()(BN(name="bn")(L.Flatten()(L.Conv1D(4, 3)(x)))),
        Reason.CHANNEL_AXIS,
    ),
    "unknown length": (
        (None, 4),
        lambda x: L.Reshape((-1, 4))(L.ReLU()(BN(name="bn")(L.Reshape((-1, 2))(L.Dense(4)(x))))),
        Reason.CHANNEL_AXIS,
    ),
    "places that become examples": (
        (4, 6),
        lambda x: L.ReLU()(BN(name="bn")(keras.ops.reshape(L.Dense(6)(x), (-1, 2, 6)))),
        Reason.CHANNEL_AXIS,
    ),
    "training": ((4,), lambda x: L.ReLU()(BN(name="bn")(L.Dense(4)(x), training=True)), Reason.TRAINING),
    "unknown subclass": ((4,), lambda x: L.ReLU()(Subclass(name="bn")(L.Dense(4)(x))), Reason.UNKNOWN_SUBCLASS),
    "zero padding": (
        (5, 4),
        lambda x: L.Conv1D(2, 3, padding="same")(BN(name="bn")(L.Activation("tanh")(x))),
        Reason.ZERO_PADDING,
    ),
    "causal": (
        (5, 4),
        lambda x: L.Conv1D(2, 3, padding="causal")(BN(name="bn")(L.Activation("tanh")(x))),
        Reason.ZERO_PADDING,
    ),
    "transposed": ((5, 4), lambda x: L.Conv1DTranspose(2, 2)(BN(name="bn")(L.ReLU()(x))), Reason.ZERO_PADDING),
    "a user cannot": ((5, 4), _one_user_cannot, Reason.ZERO_PADDING),
    "other branch": ((4,), _other_branch, Reason.BRANCHES),
    "activations": ((4,), lambda x: L.ReLU()(BN(name="bn")(L.Activation("tanh")(x))), Reason.NONLINEAR),
    "built-in activation": (
        (4,),
        lambda x: L.ReLU()(BN(name="bn")(L.Dense(4, activation="relu")(x))),
        Reason.NONLINEAR,
    ),
    "clipped relu": (
        (4,),
        lambda x: L.ReLU()(BN(name="bn", center=False)(L.ReLU(6.0)(L.Dense(4)(x)))),
        Reason.NONLINEAR,
    ),
    "a constant branch": (
        (4,),
        lambda x: L.ReLU()(BN(name="bn")(L.Add()([L.Dense(4)(x), np.ones((1, 4), "float32")]))),
        Reason.NONLINEAR,
    ),
    "a branch spread over places": (
        (5, 4),
        lambda x: L.ReLU()(BN(axis=1, name="bn")(L.Dense(3)(x) + L.Dense(3)(keras.ops.mean(x, axis=1, keepdims=True)))),
        Reason.BRANCHES,
    ),
    "branches of different ranks": (
        (5, 4),
        lambda x: L.ReLU()(BN(name="bn")(L.Add()([L.Dense(3)(x), L.Dense(3)(L.GlobalAveragePooling1D()(x))]))),
        Reason.BRANCHES,
    ),
    "arithmetic": ((4,), lambda x: L.ReLU()(BN(name="bn")(L.Dense(4)(x) + 1.0)), Reason.NONLINEAR),
    "relu above a threshold": (
        (4,),
        lambda x: L.ReLU()(BN(name="bn", center=False)(L.ReLU(threshold=0.5)(L.Dense(4)(x)))),
        Reason.NONLINEAR,
    ),
    **{
        f"a bias that would be added elsewhere, {case}": (
            (4, 4),
            lambda x, body=body: L.ReLU()(body(x)),
            Reason.BIAS_AXIS,
        )
        for case, body in {
            "none yet": lambda x: BN(axis=1, name="bn")(L.EinsumDense("abc,bd->adc", (4, 4))(x)),
            "its own": lambda x: BN(axis=1, name="bn")(L.EinsumDense("abc,bd->adc", (4, 4), bias_axes="d")(x)),
            "its own but not the new one": lambda x: BN(name="bn")(
                L.EinsumDense("abc,bcd->abd", (4, 4), bias_axes="b")(x)
            ),
            "ahead": lambda x: L.EinsumDense("abc,bd->adc", (4, 4))(BN(axis=1, name="bn")(L.Activation("tanh")(x))),
            "of every step": lambda x: BN(axis=2, name="bn")(
                L.TimeDistributed(L.EinsumDense("abc,bd->adc", (4, 4)))(L.Reshape((1, 4, 4))(x))
            ),
            "by an open size": lambda x: BN(axis=1, name="bn")(L.EinsumDense("abc,bd->adc", (3, None))(x)),
        }.items()
    },
    "input": ((4,), lambda x: L.ReLU()(BN(name="bn")(x)), Reason.INPUT),
    "monte carlo dropout": (
        (4,),
        lambda x: L.ReLU()(BN(name="bn")(L.Dropout(1e-6)(L.Dense(4)(x), training=True))),
        Reason.MONTE_CARLO,
    ),
    "lora": ((4,), _lora, Reason.QUANTIZED),
    "cast": ((4,), lambda x: L.ReLU()(BN(name="bn", dtype="float64")(L.Dense(4)(x))), Reason.PRECISION),
    "cast on the way": (
        (4,),
        lambda x: L.ReLU()(BN(name="bn")(L.Identity()(L.Dropout(0.5, dtype="mixed_float16")(L.Dense(4)(x))))),
        Reason.PRECISION,
    ),
    "cast behind": (
        (4,),
        lambda x: L.Dense(3, dtype="mixed_float16")(BN(name="bn")(L.ReLU()(x))),
        Reason.PRECISION,
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    shape, body, reason = STAYS[name]
    plan = _plan(_functional(shape, body))
    assert [(skip.site, skip.reason) for skip in plan.skips if skip.site == "bn#0"] == [("bn#0", reason)]
    if name not in ("training", "monte carlo dropout"):
        model = _functional(tuple(5 if size is None else size for size in shape), body)
        assert_same_function(model, kerasbn.fold(model), tolerance=1e-3 if "cast" in name else 1e-5)


def test_a_normalization_that_trains_takes_none_in():
    def body(x):
        return L.Softmax()(BN(name="trains")(BN(name="bn")(L.ReLU()(x)), training=True))

    reasons = {skip.site: skip.reason for skip in _plan(_functional((4,), body)).skips}
    assert reasons == {"bn#0": Reason.NONLINEAR, "trains#0": Reason.TRAINING}


class Doubtful(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = L.Dense(4), BN()

    def call(self, inputs, training=None):
        outputs = self.norm(self.dense(inputs))
        return outputs if training else outputs + 0.0


def test_a_custom_layer_that_stays_closed():
    plan = _plan(_functional((4,), lambda x: L.Dense(2)(Doubtful(name="doubtful")(x))))
    (skip,) = plan.skips
    assert (skip.site, skip.reason) == ("doubtful#0", Reason.TRAINING_BRANCH)
    assert "batch normalizations inside: 1" in skip.detail


def test_a_cast_that_changes_no_number():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.ReLU()(BN(epsilon=0.0, dtype="float64", name="bn")(L.Dense(4)(inputs))))
    _assert_stays(model, Reason.PRECISION)


def test_in_training_by_the_model_around_it():
    block = _block(functional=True, last=L.ReLU())
    plan = _plan(_functional((4,), lambda x: L.Dense(2)(block(x, training=True))))
    assert [skip.reason for skip in plan.skips] == [Reason.TRAINING]
    _assert_folds(_functional((4,), lambda x: L.Dense(2)(block(x, training=False))))


def test_tied_weights():
    one, two = L.Dense(4, name="one"), L.Dense(4, name="two")
    for layer in (one, two):
        layer.build((None, 4))
        layer._tracker.unlock()
    two._kernel = one._kernel
    two._trainable_variables[:] = [one._kernel, two.bias]
    model = _functional((4,), lambda x: L.Add()([L.ReLU()(BN(name="bn")(one(x))), L.ReLU()(two(x))]))
    plan = kerasbn.plan(model, fold=True, copy=False)
    assert [skip.reason for skip in plan.skips] == [Reason.TIED_WEIGHTS]
    assert_same_function(model, plan.apply())


def test_quantized():
    model = _chain((8,), L.Dense(8, name="taker"), BN(name="bn"), L.ReLU())
    model.get_layer("taker").quantize("int8")
    _assert_stays(model, Reason.QUANTIZED)


@pytest.mark.parametrize(("weight", "value"), [("gamma", np.nan), ("moving_variance", -1.0), ("beta", np.inf)])
def test_weights_that_are_not_finite(weight, value):
    model = _chain((4,), L.Dense(4), BN(name="bn"), L.ReLU())
    getattr(model.get_layer("bn"), weight).assign(np.full(4, value))
    plan = _plan(model)
    assert [skip.reason for skip in plan.skips] == [Reason.NON_FINITE]
    np.testing.assert_array_equal(*(inference(each, random_inputs(model)) for each in (model, plan.apply())))


# What stays the same


def test_half_precision():
    model = _chain((6,), L.Dense(8, dtype="mixed_float16"), BN(dtype="mixed_float16"), L.ReLU(dtype="mixed_float16"))
    _assert_folds(model, tolerance=5e-3)


def test_activity_regularizers_are_for_training():
    _assert_folds(_chain((4,), L.Dense(4, activity_regularizer="l2"), BN(), L.ReLU()))


def test_names_structure_and_flags():
    inputs = {"p": keras.Input((8, 4), name="p"), "q": keras.Input((8, 4), name="q")}
    conv = L.Conv1D(6, 3, name="conv", kernel_regularizer="l2", kernel_constraint="non_neg", use_bias=False)
    norm = BN(name="bn")
    norm.trainable = conv.trainable = False
    x = L.ReLU(name="relu")(norm(conv(L.Add(name="sum")([inputs["p"], inputs["q"]]))))
    outputs = {"features": BN(name="last")(L.Dense(3, name="head")(x)), "x": x}
    model = randomize(keras.Model(inputs, outputs, name="net"))
    model.compile("sgd", {"features": "mse", "x": "mse"})
    folded = _assert_folds(model)
    assert folded.name == "net"
    assert names(folded) == "p q sum conv relu head last"
    assert [layer.name for layer in folded.layers if not layer.trainable] == ["conv"]
    assert folded.get_layer("conv").kernel_regularizer is not None
    assert folded.get_layer("conv").kernel_constraint is not None
    assert folded.output_names == model.output_names
    assert folded.compiled
    assert folded.loss == model.loss


@pytest.mark.parametrize("copy", [True, False])
def test_the_source_stays_as_it_is(copy):
    model = _chain((8, 4), L.Conv1D(6, 3), BN(), L.ReLU(), BN(), L.GlobalAveragePooling1D(), L.Dense(3))
    before = snapshot(model)
    folded = kerasbn.plan(model, fold=True, copy=copy).apply()
    assert snapshot(model) == before
    assert_same_function(model, folded)
    for weight in folded.weights:
        weight.assign(weight + 1)
    assert snapshot(model) == before


def test_plan():
    model = _chain((4,), L.Dense(4, name="dense"), BN(name="bn"), L.ReLU(name="relu"), BN(name="stays"), L.Softmax())
    plan = _plan(model)
    assert [(edit.site, edit.kind, edit.detail) for edit in plan.edits] == [("bn#0", "fold", "backward, into 'dense'")]
    assert [(skip.site, skip.reason, skip.detail) for skip in plan.skips] == [
        ("stays#0", Reason.NONLINEAR, f"backward: nonlinear at relu#0; forward: nonlinear at {model.layers[-1].name}#0")
    ]
    assert "inference" in plan.notes[0]
    assert plan.to_dict()["edits"] == [{"site": "bn#0", "kind": "fold", "detail": "backward, into 'dense'"}]
    assert str(plan).startswith(f"Plan for {model.name!r}: 1 folded, 1 skipped")


def test_subclassed():
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense, self.norm, self.head = L.Dense(4), BN(), L.Dense(2)

        def call(self, x):
            return self.head(keras.ops.relu(self.norm(self.dense(x))))

        def get_config(self):
            return {}

    model = Net()
    inputs = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    model(inputs)
    randomize(model)
    folded = kerasbn.fold(model)
    assert_same_function(model, folded, inputs)
    assert not _normalizations(folded)


@pytest.mark.parametrize(
    "options", [{"position": "before"}, {"position": "after"}, {"rules": [("*", "before")]}, {"fold": 1}]
)
def test_options_that_do_not_go_together(options):
    model = _chain((4,), L.Dense(4), BN())
    with pytest.raises(kerasbn.OptionError, match="fold"):
        kerasbn.plan(model, **{"fold": True, **options})


@pytest.mark.parametrize("functional", [False, True])
def test_a_model_inside_keeps_a_layer_when_its_dropout_goes_too(functional):
    given = keras.Input((6,), name="given")
    inner = keras.Sequential([given, L.BatchNormalization(name="bn"), L.Dropout(0.5, name="d")], name="inner")
    if functional:
        inner = keras.Model(given, inner.layers[1](inner.layers[0](given)), name="inner")
    inputs = keras.Input((6,), name="in")
    x = L.Dense(2, name="b")(inner(L.Dense(6, name="a")(inputs)))
    source = randomize(keras.Model(inputs, x))
    result = kerasbn.rewrite(source, position="none", dropout="all", fold=True)
    assert [layer.name for layer in result.get_layer("inner").layers if layer.name != "given"] == ["bn"]
    assert_same_function(source, result, tolerance=1e-4)


class LocalResponseNormalization(L.Layer):
    def call(self, inputs):
        return inputs / (1 + keras.ops.abs(inputs))


def test_what_another_pass_removes_does_not_stand_in_the_way():
    """Neither as a second user of a value, nor on a branch that is to take a shift."""
    inputs = keras.Input((6,), name="in")
    x = L.Dense(6, name="a")(inputs)
    x = L.Average(name="mean")([x, L.Dropout(0.5, name="d")(x)])
    x = L.Activation("tanh", name="f")(L.BatchNormalization(name="bn")(x))
    source = randomize(keras.Model(inputs, L.Dense(2, name="head")(x)))
    plan = kerasbn.plan(source, position="none", dropout="all", fold=True)
    assert "bn#0" in {edit.site for edit in plan.edits if edit.kind == "fold"}
    assert_same_function(source, plan.apply(), tolerance=1e-4)

    response = LocalResponseNormalization(name="lrn")(L.Dense(6, name="b")(inputs))
    x = L.Add(name="sum")([L.Dense(6, activation="relu", name="a")(inputs), response])
    x = L.Activation("tanh", name="f")(L.BatchNormalization(name="bn")(x))
    source = keras.Model(inputs, L.Dense(2, name="head")(x))
    source.get_layer("bn").beta.assign(np.ones(6))
    plan = kerasbn.plan(source, position="none", fold=True, local_response_normalization="remove")
    assert "bn#0" in {edit.site for edit in plan.edits if edit.kind == "fold"}


def test_a_model_inside_keeps_a_layer_whichever_passes_would_empty_it():
    given = keras.Input((6,), name="given")
    inner = keras.Sequential([given, LocalResponseNormalization(name="lrn"), L.Dropout(0.5, name="d")], name="inner")
    inputs = keras.Input((6,), name="in")
    source = keras.Model(inputs, L.Dense(2, name="b")(inner(L.Dense(6, name="a")(inputs))))
    plan = kerasbn.plan(source, position="none", dropout="all", local_response_normalization="remove")
    assert {skip.site: skip.reason for skip in plan.skips}["inner/d#0"] is Reason.ONLY_LAYER
    assert [layer.name for layer in plan.apply().get_layer("inner").layers] == ["d"]


def test_an_activation_of_every_step_lets_scales_through():
    inputs = keras.Input((5, 6), name="in")
    x = L.TimeDistributed(L.ReLU(), name="f")(L.Dense(6, name="a")(inputs))
    norm = L.BatchNormalization(name="bn", center=False)
    source = keras.Model(inputs, L.Dense(2, name="head")(L.Activation("tanh", name="t")(norm(x))))
    norm.gamma.assign(np.arange(1.0, 7.0))
    norm.moving_variance.assign(np.full(6, 3.0))
    folded = kerasbn.fold(source)
    assert [layer.name for layer in folded.layers] == ["in", "a", "f", "t", "head"]
    assert_same_function(source, folded, tolerance=1e-4)
