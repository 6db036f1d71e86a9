"""Layers that kerasbn adds to Keras."""

from kerasbn.layers.batch_normalization import BatchNormalization as BatchNormalization
