"""synchronized=True on two replicas of each backend: as one replica with the whole batch."""

import functools
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest
from packaging.version import Version

from kerasbn.layers import BatchNormalization
from tests.serializable import reference

BACKEND = keras.backend.backend()
WIDEST = "float64" if BACKEND == "tensorflow" else "float32"
SHAPE = (6, 4, 3)
GAMMA, BETA = [1.5, -0.5, 2.0], [0.1, -1.0, 3.0]


def case(mean=2.0, std=3.0, mask=None, split=(3,), x=None, **arguments):
    generator = np.random.default_rng(0)
    return {
        "x": (generator.normal(size=SHAPE) * std + mean).tolist() if x is None else x,
        "dy": generator.normal(size=SHAPE).tolist(),
        "mask": mask,
        "split": list(split),
        "gamma": GAMMA,
        "beta": BETA,
        "arguments": {"synchronized": True, "momentum": 0.0, "epsilon": 0.1, **arguments},
    }


UNEVEN = (np.arange(4) < np.array([4, 1, 2, 3, 4, 0])[:, None]).tolist()
BAD = np.random.default_rng(0).normal(size=SHAPE)
BAD[5, 0, 0] = np.inf
CASES = {
    "widest": case(dtype=WIDEST),
    "float32": case(),
    "masked": case(dtype=WIDEST, mask=UNEVEN),
    "uneven": case(dtype=WIDEST, split=[4]),
    "one replica masked": case(dtype=WIDEST, mask=[[True] * 4] * 3 + [[False] * 4] * 3),
    "large mean": case(mean=1000.0, std=1e-3, epsilon=1e-3),
    "counted": case(dtype=WIDEST, momentum=None, unbiased_variance=True),
    "not finite": case(x=BAD.tolist(), momentum=None),
    "all masked": case(mask=[[False] * 4] * 6, momentum=None),
    "alone": case(dtype=WIDEST, synchronized=False),
}
if BACKEND == "jax":
    del CASES["uneven"]  # an axis is shared out evenly, unless a mask has it otherwise
AS_ONE = [name for name in ("widest", "float32", "masked", "uneven", "one replica masked", "counted") if name in CASES]


@pytest.fixture(scope="module")
def results():
    done = subprocess.run(
        [sys.executable, "-m", "tests.serializable.replicas"],
        input=json.dumps(list(CASES.values())),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", AS_ONE)
def test_as_one_replica(results, name):
    given, got = CASES[name], results[name]
    tolerance = 1e-6 if given["arguments"].get("dtype") == "float64" else 1e-5
    arguments = {"epsilon": 0.1, "mask": given["mask"]}
    outputs, ((mean, variance, count),) = reference.batch_normalization(given["x"], GAMMA, BETA, **arguments)
    if name == "counted":
        variance = variance * count / (count - 1)
    gradients = reference.gradients(given["x"], GAMMA, BETA, np.array(given["dy"]), **arguments)
    for key, expected in zip(
        ("outputs", "moving_mean", "moving_variance", "dx", "dgamma", "dbeta"),
        (outputs, mean, variance, *gradients),
        strict=True,
    ):
        np.testing.assert_allclose(got[key], expected, atol=10 * tolerance * np.max(np.abs(expected)), err_msg=key)


def test_variance_is_sound(results):
    x = np.array(CASES["large mean"]["x"]).astype("float32").astype("float64")
    np.testing.assert_allclose(results["large mean"]["moving_variance"], x.var((0, 1)), rtol=0.05)


@pytest.mark.parametrize("name", ["not finite", "all masked"])
def test_batch_that_says_nothing(results, name):
    assert results[name]["moving_mean"] == [0, 0, 0]
    assert results[name]["moving_variance"] == [1, 1, 1]
    assert results[name]["seen_batches"] == [0, 0, 0]


def test_not_synchronized(results):
    x = np.array(CASES["alone"]["x"])
    expected = np.concatenate(
        [reference.batch_normalization(half, GAMMA, BETA, epsilon=0.1)[0] for half in (x[:3], x[3:])]
    )
    np.testing.assert_allclose(results["alone"]["outputs"], expected, atol=1e-6)


def test_few_collectives(results):
    """One forward, for both moments, and one backward.

    Under JAX one for each moment, and maybe one for the weights; old versions have another.
    """
    allowed = (2,)
    if BACKEND == "jax":
        allowed = (3, 4) if Version(version("jax")) >= Version("0.8") else (3, 4, 5)
    assert results["widest"]["all_reduces"] in allowed


def _over(axes, synchronized):
    """Normalize a batch that is shared out over the first axis, and repeated over others."""
    import jax

    layer = BatchNormalization(synchronized=synchronized, epsilon=0.1)
    layer.build((None, 3))
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    call = functools.partial(layer.stateless_call, layer.trainable_variables, layer.non_trainable_variables)
    run = jax.vmap(lambda x: call(x, training=True)[0], axis_name=axes[0])
    for axis in axes[1:]:
        run = jax.vmap(run, in_axes=None, axis_name=axis, axis_size=2)
    return np.reshape(run(x), (-1, 8, 3))[0], reference.batch_normalization(
        x.reshape(8, 3), np.ones(3), 0, epsilon=0.1
    )[0]


@pytest.mark.skipif(BACKEND != "jax", reason="axes have names under JAX alone")
@pytest.mark.parametrize(("axes", "synchronized"), [(["data"], True), (["data"], "data"), (["data", "model"], "data")])
def test_over_the_axis_that_is_bound_or_named(axes, synchronized):
    got, expected = _over(axes, synchronized)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="axes have names under JAX alone")
@pytest.mark.parametrize(
    ("axes", "synchronized", "message"),
    [
        (["data", "model"], True, r"synchronized=True cannot tell over which .*'data'.* name it"),
        (["data"], "batch", r"synchronized='batch' .* no axis of that name is bound, but \('data',\).*'data'"),
    ],
)
def test_axis_that_cannot_be_told(axes, synchronized, message):
    with pytest.raises(ValueError, match=message):
        _over(axes, synchronized)


def test_a_name_or_none():
    with pytest.raises(ValueError, match=r"`synchronized` must be True or False.*synchronized=1"):
        BatchNormalization(synchronized=1)
