"""Every layer that Keras has is carried over: its configuration, its weights, what it computes."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import UnsupportedModelError
from tests.helpers import assert_same_function, random_inputs, randomize

VECTOR, STEPS, IMAGE, VOLUME = (6,), (7, 6), (8, 8, 3), (6, 6, 6, 3)
BY_RANK = {1: STEPS, 2: IMAGE, 3: VOLUME}
OFFSET = np.float32(3)
CUSTOM = {"kernel_initializer": "he_normal", "kernel_regularizer": "l2", "kernel_constraint": "max_norm"}


class Squash(keras.Initializer):
    """An initializer of the user's, not registered."""

    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype)

    def get_config(self):
        return {}


def _by_rank(name, *args, ranks=(1, 2, 3), **kwargs):
    return {f"{name}{rank}D": (getattr(L, f"{name}{rank}D")(*args, **kwargs), [BY_RANK[rank]]) for rank in ranks}


def _layers():
    """By the name of the class: a layer, and the shapes of its inputs."""
    images = {
        "AugMix": {},
        "AutoContrast": {},
        "CenterCrop": {"height": 4, "width": 4},
        "ContrastLimitedAdaptiveHistogramEqualization": {"tile_grid_size": (2, 2)},
        "RandAugment": {},
        "RandomBrightness": {"factor": 0.2},
        "RandomColorDegeneration": {"factor": 0.2},
        "RandomColorJitter": {"brightness_factor": 0.2},
        "RandomContrast": {"factor": 0.2},
        "RandomCrop": {"height": 4, "width": 4},
        "RandomElasticTransform": {},
        "RandomErasing": {},
        "RandomFlip": {},
        "RandomGaussianBlur": {},
        "RandomGrayscale": {},
        "RandomHue": {"factor": 0.2},
        "RandomInvert": {},
        "RandomPerspective": {},
        "RandomPosterization": {"factor": 4},
        "RandomRotation": {"factor": 0.2},
        "RandomSaturation": {"factor": 0.2},
        "RandomSharpness": {"factor": 0.2},
        "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
        "RandomZoom": {"height_factor": 0.2},
        "Resizing": {"height": 4, "width": 4},
        "Solarization": {},
    }
    merges = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    return {
        **{name: (getattr(L, name)(**arguments), [IMAGE]) for name, arguments in images.items()},
        **{name: (getattr(L, name)(), [VECTOR, VECTOR]) for name in merges},
        **_by_rank("Conv", 4, 2, activation="gelu", bias_initializer=Squash(), **CUSTOM),
        **_by_rank("Conv", 4, 2, activation="gelu"),
        **_by_rank("DepthwiseConv", 2, depth_multiplier=2, ranks=(1, 2)),
        **_by_rank("SeparableConv", 4, 2, depth_multiplier=2, ranks=(1, 2)),
        **{f"Conv{rank}DTranspose": (getattr(L, f"Conv{rank}DTranspose")(4, 2), [BY_RANK[rank]]) for rank in BY_RANK},
        **{f"ConvLSTM{rank}D": (getattr(L, f"ConvLSTM{rank}D")(2, 2), [(3, *BY_RANK[rank])]) for rank in BY_RANK},
        **_by_rank("AveragePooling", 2),
        **_by_rank("MaxPooling", 2),
        **_by_rank("GlobalAveragePooling", keepdims=True),
        **_by_rank("GlobalMaxPooling"),
        **_by_rank("AdaptiveAveragePooling", 2),
        **_by_rank("AdaptiveMaxPooling", 2),
        **_by_rank("Cropping", 1),
        **_by_rank("ZeroPadding", 2),
        **_by_rank("UpSampling", 2),
        **_by_rank("SpatialDropout", 0.3),
        "Activation": (L.Activation(keras.activations.mish), [VECTOR]),
        "ActivityRegularization": (L.ActivityRegularization(l2=0.1), [VECTOR]),
        "AdditiveAttention": (L.AdditiveAttention(dropout=0.1), [STEPS, STEPS]),
        "AlphaDropout": (L.AlphaDropout(0.1), [VECTOR]),
        "Attention": (L.Attention(use_scale=True, score_mode="concat"), [STEPS, STEPS]),
        "BatchNormalization": (L.BatchNormalization(momentum=0.5, gamma_initializer=Squash()), [IMAGE]),
        "Bidirectional": (L.Bidirectional(L.GRU(3), merge_mode="sum"), [STEPS]),
        "CategoryEncoding": (L.CategoryEncoding(5, output_mode="multi_hot"), [("int32", 3)]),
        "Dense": (L.Dense(4, activation=keras.ops.sin, kernel_initializer=Squash()), [VECTOR]),
        "Discretization": (L.Discretization([-1.0, 0.0, 1.0]), [VECTOR]),
        "Dot": (L.Dot(axes=1), [VECTOR, VECTOR]),
        "Dropout": (L.Dropout(0.5, noise_shape=(None, 1)), [VECTOR]),
        "ELU": (L.ELU(0.5), [VECTOR]),
        "EinsumDense": (L.EinsumDense("abc,cd->abd", (7, 4), bias_axes="d", activation="relu", **CUSTOM), [STEPS]),
        "Embedding": (L.Embedding(9, 4, mask_zero=True), [("int32", 3)]),
        "Flatten": (L.Flatten(), [IMAGE]),
        "GRU": (L.GRU(3, activation="softsign", recurrent_initializer="he_normal"), [STEPS]),
        "GaussianDropout": (L.GaussianDropout(0.1), [VECTOR]),
        "GaussianNoise": (L.GaussianNoise(0.1), [VECTOR]),
        "GroupNormalization": (L.GroupNormalization(3), [IMAGE]),
        "GroupedQueryAttention": (L.GroupQueryAttention(2, 4, 2, **CUSTOM), [STEPS, STEPS]),
        "HashedCrossing": (L.HashedCrossing(5), [("int32", 1), ("int32", 1)]),
        "Hashing": (L.Hashing(5), [("int32", 3)]),
        "Identity": (L.Identity(), [VECTOR]),
        "IntegerLookup": (L.IntegerLookup(vocabulary=[1, 2, 3]), [("int32", 3)]),
        "LSTM": (L.LSTM(3, unit_forget_bias=False, go_backwards=True), [STEPS]),
        "Lambda": (L.Lambda(lambda x, by: np.float32(by) * OFFSET + x, lambda s: s, arguments={"by": 2}), [VECTOR]),
        "LayerNormalization": (L.LayerNormalization(epsilon=0.1), [STEPS]),
        "LeakyReLU": (L.LeakyReLU(0.1), [VECTOR]),
        "Masking": (L.Masking(0.5), [STEPS]),
        "MelSpectrogram": (L.MelSpectrogram(fft_length=32, sequence_stride=16, sampling_rate=64), [(64,)]),
        "MultiHeadAttention": (L.MultiHeadAttention(2, 4, bias_initializer=Squash(), **CUSTOM), [STEPS, STEPS]),
        "Normalization": (L.Normalization(mean=1.0, variance=4.0), [VECTOR]),
        "PReLU": (L.PReLU(shared_axes=[1, 2], alpha_initializer=Squash()), [IMAGE]),
        "Permute": (L.Permute((2, 1)), [STEPS]),
        "Pipeline": (L.Pipeline([L.RandomFlip(), L.Rescaling(2.0)]), [IMAGE]),
        "RMSNormalization": (L.RMSNormalization(), [STEPS]),
        "RNN": (L.RNN([L.LSTMCell(3), L.GRUCell(3, activation="relu")]), [STEPS]),
        "ReLU": (L.ReLU(6.0, negative_slope=0.1), [VECTOR]),
        "RepeatVector": (L.RepeatVector(2), [VECTOR]),
        "Rescaling": (L.Rescaling([1.0, 2.0, 3.0]), [IMAGE]),
        "Reshape": (L.Reshape((-1, 2)), [VECTOR]),
        "ReversibleEmbedding": (L.ReversibleEmbedding(9, 4), [("int32", 3)]),
        "STFTSpectrogram": (L.STFTSpectrogram(frame_length=16, frame_step=8, fft_length=16), [(64, 1)]),
        "SimpleRNN": (L.SimpleRNN(3, return_sequences=True), [STEPS]),
        "Softmax": (L.Softmax(), [VECTOR]),
        "SpectralNormalization": (L.SpectralNormalization(L.Dense(4)), [VECTOR]),
        "StringLookup": (L.StringLookup(vocabulary=["a", "b"], invert=True), [("int64", 3)]),
        "TimeDistributed": (L.TimeDistributed(L.Dense(3, activation="relu", **CUSTOM)), [STEPS]),
        "UnitNormalization": (L.UnitNormalization(), [VECTOR]),
    }


WITHOUT_A_CASE = {
    *("Layer", "Wrapper"),  # to be derived from
    *("LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"),  # in "RNN"
    "InputLayer",  # in each
    *("CutMix", "MixUp", "MaxNumBoundingBoxes"),  # labels or boxes, for a pipeline of data
    "TextVectorization",  # text
    "Equalization",  # Keras builds no model with it: "part of a cycle"
    "RandomShear",  # below
    *("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"),  # what other libraries made
}


def _model(name):
    layer, shapes = _layers()[name]
    inputs = [
        keras.Input(shape[1:], dtype=shape[0]) if isinstance(shape[0], str) else keras.Input(shape) for shape in shapes
    ]
    if name in ("MultiHeadAttention", "GroupedQueryAttention"):
        return keras.Model(inputs, layer(*inputs))
    return keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))


@pytest.mark.parametrize("name", sorted(_layers()))
def test_carried_over(name):
    source = _model(name)
    randomize(source)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    ours, theirs = result.layers[-1], source.layers[-1]
    assert type(ours) is type(theirs)
    assert ours is not theirs
    assert ours.get_config() == theirs.get_config()
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is not other
    if name != "StringLookup":
        assert_same_function(source, result, random_inputs(source), tolerance=0)


def test_what_its_own_configuration_cannot_rebuild_is_refused_or_reused():
    """Keras's RandomShear does not take the factors that its get_config gives."""
    inputs = keras.Input(IMAGE)
    source = keras.Model(inputs, L.RandomShear(0.2, name="shear")(inputs))
    with pytest.raises(UnsupportedModelError, match=r"'shear' \(RandomShear\).*copy=False"):
        kerasbn.rewrite(source)
    assert_same_function(source, kerasbn.rewrite(source, copy=False))


def test_an_identity_made_with_a_policy_object():
    inputs = keras.Input(VECTOR)
    source = keras.Model(inputs, L.Dense(2)(L.Identity(dtype=keras.DTypePolicy("float32"), name="same")(inputs)))
    assert_same_function(source, kerasbn.rewrite(source), tolerance=0)


class Gated(L.Layer):
    """A layer whose argument `activation` is an attribute of another name."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.gate = keras.activations.get(activation)
        self.activation = None

    def call(self, inputs):
        return inputs * self.gate(inputs)

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.gate)}


def test_an_argument_kept_under_another_name():
    inputs = keras.Input(VECTOR)
    source = keras.Model(inputs, Gated("sigmoid")(inputs))
    assert_same_function(source, kerasbn.rewrite(source), tolerance=0)


class Terse(L.Layer):
    """As in most tutorials: the constructor takes nothing, not even a name."""

    def __init__(self):
        super().__init__()
        self.inner = L.Dense(3)

    def call(self, inputs):
        return self.inner(inputs)


def test_a_constructor_without_arguments():
    inputs = keras.Input(VECTOR)
    source = randomize(keras.Model(inputs, Terse()(inputs)))
    result = kerasbn.rewrite(source, custom_layers="keep")
    assert [layer.name for layer in result.layers] == [layer.name for layer in source.layers]
    assert [variable.path for variable in result.variables] == [variable.path for variable in source.variables]
    assert_same_function(source, result, tolerance=0)


@keras.saving.register_keras_serializable("every_layer")
class Talkative(L.Layer):
    """Its configuration tells what the constructor works out, or was told afterwards, and does not take."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.twice = units, 2 * units
        self.inner = L.Dense(units, name="inner")

    def call(self, inputs):
        return self.twice * self.inner(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "twice": self.twice}


def test_a_configuration_that_tells_more_than_the_constructor_takes(tmp_path):
    inputs = keras.Input(VECTOR)
    source = randomize(keras.Model(inputs, Talkative(3, name="talks")(inputs)))
    result = source
    for number in range(2):  # a copy of a copy as well
        result = kerasbn.rewrite(result, custom_layers="keep")
        assert type(result.get_layer("talks")) is Talkative
        assert_same_function(source, result, tolerance=0)
        result.save(tmp_path / f"{number}.keras")
        assert_same_function(source, keras.models.load_model(tmp_path / f"{number}.keras"), tolerance=0)
    source.get_layer("talks").twice = 5
    with pytest.raises(UnsupportedModelError, match=r"'talks' \(Talkative\).*copy=False"):
        kerasbn.rewrite(source, custom_layers="keep")


def test_the_policy_of_a_layer_whose_configuration_does_not_tell_it():
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = Terse()
    finally:
        keras.config.set_dtype_policy(default)
    inputs = keras.Input(VECTOR)
    source = keras.Model(inputs, layer(inputs))
    for custom_layers in ("open", "keep"):
        result = kerasbn.rewrite(source, custom_layers=custom_layers)
        assert result.layers[-1].dtype_policy.name == "mixed_bfloat16"


def test_every_layer_has_a_case():
    public = {
        value.__name__ for value in vars(L).values() if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    }
    assert public - WITHOUT_A_CASE == set(_layers())
