"""A model for every layer that Keras has."""

import keras
import numpy as np
from keras import layers as L

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


def every_layer():
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


def model_with(name):
    """A model that has no other layer than the one of that name."""
    layer, shapes = every_layer()[name]
    inputs = [
        keras.Input(shape[1:], dtype=shape[0]) if isinstance(shape[0], str) else keras.Input(shape) for shape in shapes
    ]
    if name in ("MultiHeadAttention", "GroupedQueryAttention"):
        return keras.Model(inputs, layer(*inputs))
    return keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))
