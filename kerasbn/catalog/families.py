"""The families of Keras's layers that are alike to batch normalization, each with all its members."""

from __future__ import annotations

from keras import layers

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED_CONVOLUTIONS = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE_CONVOLUTIONS = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE_CONVOLUTIONS = (layers.SeparableConv1D, layers.SeparableConv2D)

DROPOUTS = (
    *(layers.Dropout, layers.GaussianDropout, layers.AlphaDropout, layers.GaussianNoise),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
)
"""Random while training, nothing at inference."""

RESHAPINGS = (layers.Reshape, layers.Flatten, layers.Permute, layers.RepeatVector)
ZERO_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
CROPPINGS = (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)

AVERAGE_POOLINGS = (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
MAX_POOLINGS = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
UPSAMPLINGS = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)
GLOBAL_AVERAGE_POOLINGS = (
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    layers.GlobalAveragePooling3D,
)
GLOBAL_MAX_POOLINGS = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)

MERGES = (layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum, layers.Concatenate)
ATTENTIONS = (
    *(layers.Attention, layers.AdditiveAttention, layers.MultiHeadAttention),
    *(layers.GroupQueryAttention, layers.Dot),
)
EXAMPLEWISE_NORMALIZATIONS = (
    *(layers.LayerNormalization, layers.GroupNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization),
)
