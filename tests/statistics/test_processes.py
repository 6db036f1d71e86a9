"""Two processes calibrate a model together, each with its share of the data: as one process with all of it."""

import os
import pathlib
import pickle
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasbn
from tests.statistics.processes import CASES, FEEDS, SAMPLE, network

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    output = tmp_path_factory.mktemp("processes")
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = ",".join(str(each.getsockname()[1]) for each in (one, other))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "KERAS_BACKEND": keras.backend.backend(),
    }
    command = [sys.executable, "-m", "tests.statistics.process"]
    processes = [
        subprocess.Popen([*command, str(rank), ports, output], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    paths = [output / f"{rank}.pickle" for rank in range(2)]
    assert all(path.exists() for path in paths), b"\n".join(errors).decode()[-4000:]
    return [*(pickle.loads(path.read_bytes()) for path in paths), output]


def statistics_of(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.non_trainable_variables]


@pytest.mark.parametrize("case", [*CASES, *FEEDS])
def test_as_one_process(found, case):
    expected = network(keras.layers.Identity())
    kerasbn.calibrate(expected, SAMPLE, **CASES.get(case, CASES["unequal"])[1])
    one, other = (each[case] for each in found[:2])
    assert one["error"] is None
    tolerance = 1e-2 if case == "passes" else 1e-5  # which normalizes by the batches, and they are others
    for got, same, whole in zip(one["statistics"], other["statistics"], statistics_of(expected), strict=True):
        np.testing.assert_array_equal(got, same)
        np.testing.assert_allclose(got, whole, rtol=tolerance, atol=tolerance)


# What each of the two is told.
ERRORS = {
    "fails": (
        ("ProcessError", "Process 1 of 2 failed, and so all of them do: RuntimeError: the disk is full"),
        ("RuntimeError", "the disk is full"),
    ),
    "nobody": (("OptionError", "holds no batch on any of the processes"),) * 2,
    "others": (("ProcessError", "Process 1 of 2 has another model than process 0, or other options"),) * 2,
}


@pytest.mark.parametrize("case", ERRORS)
def test_all_fail_together(found, case):
    for rank, expected in enumerate(ERRORS[case]):
        kind, message = found[rank][case]["error"]
        assert (kind, expected[1] in message) == (expected[0], True), message
        assert_as_before(found[rank][case])


# What a verb says where it does not do it.
REFUSALS = {"export of another": ("done", "ModelFileError: 'exported.keras' exists already.")}
if keras.backend.backend() == "jax":
    together = "OptionError: Several processes hold the weights of model 'sequential' together"
    REFUSALS["rewrite that fits"] = (together, together)
if keras.backend.backend() == "tensorflow":
    workers = "OptionError: Model 'sequential' was made for 2 workers of TensorFlow"
    REFUSALS["find_learning_rate"] = (workers, workers)
VERBS = [
    *("rewrite", "rewrite on data", "rewrite that fits", "fold", "to_keras", "average", "load"),
    *("diagnose", "variance_shift", "find_learning_rate", "export", "export of another"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_verbs(found, verb):
    one, other = (each["verbs"][verb] for each in found[:2])
    if isinstance(one, str):
        for said, expected in zip((one, other), REFUSALS.get(verb, ("done", "done")), strict=True):
            assert said.replace(f"{found[2]}/", "").startswith(expected)
        return
    for got, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(got, same)


def test_one_that_ends(found):
    assert "ends" not in found[1]
    kind, message = found[0]["ends"]["error"]
    assert kind == "ProcessError"
    assert "gets no answer from the others" in message
    assert_as_before(found[0]["ends"])


def test_alone_among_several(found):
    for rank, each in enumerate(found[:2]):
        if keras.backend.backend() == "jax":
            assert each["alone"]["error"][0] == "OptionError"
            assert "with synchronized=True" in each["alone"]["error"][1]
            assert_as_before(each["alone"])
        else:
            assert f"This is process {rank} of 2" in each["alone"]["said"][0]


def assert_as_before(outcome):
    for got, fresh in zip(outcome["statistics"], statistics_of(network(keras.layers.Identity())), strict=True):
        np.testing.assert_array_equal(got, fresh)


def test_one_process_is_as_without(recwarn):
    plain, synchronized = (network(keras.layers.Identity()) for _ in range(2))
    kerasbn.calibrate(plain, SAMPLE)
    kerasbn.calibrate(synchronized, SAMPLE, synchronized=True)
    assert not [each for each in recwarn if "synchronized" in str(each.message)]
    for got, expected in zip(statistics_of(synchronized), statistics_of(plain), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.tensorflow
def test_a_model_that_was_made_outside_of_its_strategy(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(kerasbn.OptionError, match="outside of the scope"):
        kerasbn.calibrate(network(keras.layers.Identity()), SAMPLE, synchronized=True)


def test_no_choice():
    with pytest.raises(kerasbn.OptionError, match="synchronized is 'yes'"):
        kerasbn.calibrate(network(keras.layers.Identity()), SAMPLE, synchronized="yes")
