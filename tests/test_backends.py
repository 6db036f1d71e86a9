"""The page on backends names tests that there are; weights that are sharded over devices."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "support" / "backends.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE)))


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_names_is_there(named):
    path, _, function = named.partition("::")
    assert (ROOT / path).exists()
    if function:
        assert f"\ndef {function}(" in (ROOT / path).read_text()


def test_every_row_is_tested():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 6][1:]
    assert len(rows) > 10
    assert all("tests/" in row or "tested by" in row or "---" in row for row in rows)


SHARDED = r"""
import re

import keras
import numpy as np
from keras.distribution import DeviceMesh, LayoutMap, ModelParallel, list_devices, set_distribution

import kerasbn

layouts = LayoutMap(DeviceMesh((2, 2), ["batch", "model"], list_devices()))
{layouts}
x, y = np.random.default_rng(0).normal(size=(32, 6)).astype("float32"), np.arange(32) % 3


def trained():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    model = kerasbn.rewrite(model)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    return kerasbn.calibrate(model, x)


alone = trained()
set_distribution(ModelParallel(layout_map=layouts, batch_dim_name="batch"))
model = trained()
sharded = [each for each in (*model.variables, *model.optimizer.variables) if "model" in each.value.sharding.spec]
folded = kerasbn.fold(model)
sharded += [each for each in folded.variables if "model" in each.value.sharding.spec]
print(*(re.sub(r"(.*/)?sequential(_\d+)?[/_]", "", each.path) for each in sharded))
model.save("sharded.keras")
set_distribution(None)
for other in (alone, kerasbn.load("sharded.keras")):
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(two), atol=1e-5)
"""


def test_sharded_weights(tmp_path):
    (layouts,) = re.findall(r"```py\n(layouts.*?)```", PAGE, re.DOTALL)
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    environment = {**os.environ, **flags, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", SHARDED.replace("{layouts}", layouts)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [
        *("hidden/kernel", "hidden_bn/gamma", "hidden_bn/beta", "hidden_bn/moving_mean", "hidden_bn/moving_variance"),
        *("hidden_kernel_momentum", "hidden_bn_gamma_momentum", "hidden_bn_beta_momentum"),
        *("hidden/kernel", "hidden/bias"),
    ]
