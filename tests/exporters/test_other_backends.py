"""Under other backends than TensorFlow a model is written as `.keras`, and the way to the other formats is named."""

import os
import shlex
import subprocess
import sys

import keras
import pytest

import kerasbn
from kerasbn import UnsupportedModelError
from tests.helpers import random_inputs, randomize

pytestmark = pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="of other backends")


@pytest.mark.parametrize("path", ["model.onnx", "model"])
def test_the_command_that_is_named_works(path, tmp_path):
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization()]
    model = randomize(keras.Sequential([keras.Input((6,), name="x"), *layers]))
    with pytest.raises(UnsupportedModelError, match="under TensorFlow") as refused:
        kerasbn.export(model, tmp_path / path)
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "model.keras")
    command = str(refused.value).split(": ")[-1]
    variable, program, *arguments = shlex.split(command)
    assert (variable, program) == ("KERAS_BACKEND=tensorflow", "kerasbn-rewrite")
    run = "from kerasbn.cli.main import run; run()"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", run, *arguments], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / path).exists()


def test_keras_files_are_written_and_folded(tmp_path):
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization()]
    model = randomize(keras.Sequential([keras.Input((6,), name="x"), *layers]))
    report = kerasbn.export(model, tmp_path / "model.keras", inputs=random_inputs(model))
    assert (report.folded, report.max_error <= 1e-5) == (1, True)
