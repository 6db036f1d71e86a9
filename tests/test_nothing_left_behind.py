"""What a verb leaves as it was: the source, and what all threads of the process share."""

import concurrent.futures
import logging
import sys

import keras
import numpy as np
import pytest
from keras import layers as L
from tf2onnx import tfonnx

import kerasbn
from tests.helpers import inference, randomize, recorded_calls, snapshot

X = np.random.default_rng(0).normal(size=(8, 12)).astype("float32")


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = L.Dense(12), L.BatchNormalization()

    def call(self, inputs):
        return self.norm(self.dense(inputs))


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block, self.head = Block(), L.Dense(3)

    def call(self, inputs):
        return self.head(keras.ops.relu(self.block(inputs)))


class Stepping(Subclassed):
    """Its network is what is rewritten."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.network = _sequential()

    def call(self, inputs):
        return super().call(self.network(inputs))

    def train_step(self, data):
        raise NotImplementedError


def _sequential():
    hidden = [L.Dense(12, activation="tanh"), L.BatchNormalization(), L.Dropout(0.5), L.Dense(12), L.ReLU()]
    return randomize(keras.Sequential([keras.Input((12,)), *hidden, L.Dense(12), L.BatchNormalization()]))


def _functional():
    inputs = keras.Input((12,))
    dense = L.Dense(12)
    x = keras.ops.relu(L.BatchNormalization()(dense(dense(inputs) * 2.0)) + inputs)
    x = L.BatchNormalization()(L.Dense(12)(Block()(x)))
    return randomize(keras.Model(inputs, L.Dense(3)(keras.ops.sigmoid(x))))


def _nested():
    inputs = keras.Input((12,))
    inner = _sequential()
    return randomize(keras.Model(inputs, L.BatchNormalization()(inner(inputs) - keras.ops.tanh(inner(-inputs)))))


def _along_steps():
    inputs = keras.Input((12,))
    x = L.TimeDistributed(_sequential())(L.Reshape((2, 12))(L.Dense(24)(inputs)))
    return randomize(keras.Model(inputs, L.BatchNormalization()(L.Flatten()(x))))


def _called(kind):
    model = kind(name=kind.__name__.lower())
    model(X)
    return randomize(model)


MODELS = {
    "sequential": _sequential,
    "functional": _functional,
    "nested": _nested,
    "along steps": _along_steps,
    "subclassed": lambda: _called(Subclassed),
    "stepping": lambda: _called(Stepping),
}
VERBS = {
    "onnx": lambda model, folder: kerasbn.export(model, folder / "model.onnx"),
    "saved_model": lambda model, folder: kerasbn.export(model, folder / "model"),
    "litert": lambda model, folder: kerasbn.export(model, folder / "model.tflite"),
    "openvino": lambda model, folder: kerasbn.export(model, folder / "model.xml"),
    "keras": lambda model, folder: kerasbn.export(model, folder / "model.keras"),
    "unfolded": lambda model, folder: kerasbn.export(model, folder / "model.onnx", fold=False),
    "plan": lambda model, folder: str(kerasbn.plan(model)),
    "plan, copy=False": lambda model, folder: str(kerasbn.plan(model, copy=False)),
    "plan, norm": lambda model, folder: str(kerasbn.plan(model, norm=L.LayerNormalization(), rules=[("*", "before")])),
    "page": lambda model, folder: kerasbn.plan(model, rules=[("*", "before")]).to_html(),
    "rewrite": lambda model, folder: kerasbn.rewrite(model, rules=[("*", "before")]),
    "fold": lambda model, folder: kerasbn.fold(model),
    "to_keras": lambda model, folder: kerasbn.layers.to_keras(model),
    "from_keras": lambda model, folder: kerasbn.layers.from_keras(model),
    "calibrate": lambda model, folder: kerasbn.calibrate(model, X),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", MODELS)
def test_no_call_is_recorded_on_the_source(kind, verb, tmp_path):
    """Else the memory that a model takes would grow with each export."""
    model = MODELS[kind]()
    before = recorded_calls(model)
    VERBS[verb](model, tmp_path)
    assert recorded_calls(model) == before


def test_measuring_the_variance_shift_records_no_call():
    model = _functional()
    before = recorded_calls(model)
    kerasbn.variance_shift(model, X)
    assert recorded_calls(model) == before


class Failing(L.Layer):
    """Planning finds that it normalizes; the network that is built then cannot have it."""

    def build(self, shape):
        if self.name != "tried":
            raise ValueError("cannot be built")

    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0)


def test_a_rewrite_that_fails_records_no_call_on_layers_to_be_reused():
    model = _functional()
    before = recorded_calls(model)
    with pytest.raises(kerasbn.UnsupportedModelError, match="cannot be built"):
        kerasbn.rewrite(model, copy=False, norm=Failing(), rules=[("*", "before")])
    assert recorded_calls(model) == before


def _state_of_the_process():
    loggers = [logging.getLogger(name) for name in ("", "tf2onnx", "tensorflow")]
    return (
        [(each.level, each.propagate, list(each.handlers), list(each.filters)) for each in loggers],
        [list(handler.filters) for each in loggers for handler in each.handlers],
        (keras.config.dtype_policy(), keras.config.floatx(), keras.config.image_data_format()),
        sys.getrecursionlimit(),
    )


def _network(index, policy):
    inputs = keras.Input((12,), name="x")
    x = L.Dense(8 + index, activation="relu", dtype=policy)(inputs)
    x = Block(dtype="float32")(L.Dense(12, dtype=policy)(L.BatchNormalization(dtype=policy)(x)))
    return randomize(keras.Model(inputs, L.Dense(3, dtype=policy, name="y")(keras.ops.tanh(x))), index)


def _error_of_export(model, path):
    return kerasbn.export(model, path, overwrite=True).max_error


def _result_of(verb):
    def result(model, path):
        made = verb(model)
        policies = [layer.dtype_policy.name for layer in made.layers]
        return policies, [output.tobytes() for output in inference(made, X)]

    return result


JOBS = {
    ".onnx": _error_of_export,
    "": _error_of_export,
    ".keras": _error_of_export,
    ".rewrite": _result_of(kerasbn.rewrite),
    ".fold": _result_of(kerasbn.fold),
    ".from_keras": _result_of(kerasbn.layers.from_keras),
}


@pytest.mark.parametrize("policies", [("float32", "mixed_float16"), ("mixed_float16",)], ids=["models", "one model"])
def test_threads(policies, tmp_path):
    """What goes on in several threads at once gives what it gives one after the other."""
    models = [_network(index, policy) for index, policy in enumerate(policies)]
    work = [
        (job, model, tmp_path / f"{index}{suffix}")
        for suffix, job in JOBS.items()
        for index, model in enumerate(models)
    ]
    expected = [job(model, path) for job, model, path in work]
    before = _state_of_the_process(), [(snapshot(model), recorded_calls(model)) for model in models]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda each: each[0](*each[1:]), work))
    assert got == expected
    assert (_state_of_the_process(), [(snapshot(model), recorded_calls(model)) for model in models]) == before


def test_what_other_threads_log_is_not_lost_in_an_export(tmp_path, monkeypatch):
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    convert = tfonnx.process_tf_graph

    def noisy(*args, **kwargs):
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            threads.submit(logging.getLogger("mine").error, "from elsewhere").result()
        logging.getLogger("tf2onnx.tfonnx").error("from here")
        logging.error("from here, by the root")
        return convert(*args, **kwargs)

    monkeypatch.setattr(tfonnx, "process_tf_graph", noisy)
    kerasbn.export(_sequential(), tmp_path / "model.onnx")
    assert [message for message in heard if message.startswith("from ")] == ["from elsewhere"]
    assert logging.getLogger().handlers == [handler]
