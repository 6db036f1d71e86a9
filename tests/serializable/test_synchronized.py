"""synchronized=True on two replicas: as one replica with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.serializable import reference

pytestmark = pytest.mark.tensorflow

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
    "float64": case(dtype="float64"),
    "float32": case(),
    "masked": case(dtype="float64", mask=UNEVEN),
    "uneven": case(dtype="float64", split=[4]),
    "one replica masked": case(dtype="float64", mask=[[True] * 4] * 3 + [[False] * 4] * 3),
    "large mean": case(mean=1000.0, std=1e-3, epsilon=1e-3),
    "counted": case(dtype="float64", momentum=None, unbiased_variance=True),
    "not finite": case(x=BAD.tolist(), momentum=None),
    "all masked": case(mask=[[False] * 4] * 6, momentum=None),
    "alone": case(dtype="float64", synchronized=False),
}


@pytest.fixture(scope="module")
def results():
    done = subprocess.run(
        [sys.executable, "-m", "tests.serializable.replicas"],
        input=json.dumps(list(CASES.values())),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", ["float64", "float32", "masked", "uneven", "one replica masked", "counted"])
def test_as_one_replica(results, name):
    given, got = CASES[name], results[name]
    tolerance = 1e-5 if name == "float32" else 1e-6
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
