"""Keras's own tests of BatchNormalization, run with kerasbn's class in its place."""

import unittest

import keras
import pytest
from keras.src import layers

import kerasbn.layers

NAME = "keras.src.layers.normalization.batch_normalization_test"
batch_normalization_test = pytest.importorskip(NAME, reason="this version of Keras comes without its tests")
pytestmark = pytest.mark.tensorflow


def test_keras_own_suite(monkeypatch):
    monkeypatch.setattr(layers, "BatchNormalization", kerasbn.layers.BatchNormalization)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(batch_normalization_test.BatchNormalizationTest)
    made = []
    build = kerasbn.layers.BatchNormalization.build
    monkeypatch.setattr(
        kerasbn.layers.BatchNormalization, "build", lambda self, shape: (made.append(self), build(self, shape))[1]
    )
    result = suite.run(unittest.TestResult())
    assert result.wasSuccessful(), "\n".join(trace for _, trace in result.failures + result.errors)
    assert result.testsRun >= 30
    assert not result.skipped
    assert len(made) > result.testsRun
    assert keras.layers.BatchNormalization is not kerasbn.layers.BatchNormalization
