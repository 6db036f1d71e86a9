"""The range test leaves nothing behind, and says what it was told to."""

import itertools
import random
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras.optimizers import schedules

import kerasbn
from kerasbn import _keras
from kerasbn.layers import BatchNormalizedRNN
from kerasbn.range_test.learning_rate import _has_diverged
from tests.helpers import sequential

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(96, 12)).astype("float32")
Y = GENERATOR.integers(0, 3, 96)


def _compiled(optimizer="sgd", trained=True, **kwargs):
    layers = [L.Dense(16, "relu"), L.BatchNormalization(), L.Dropout(0.5, seed=3), L.GaussianNoise(0.1)]
    model = sequential(*layers)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **kwargs)
    if trained:
        model.fit(X, Y, verbose=0)
    return model


def _state(model):
    """All that training changes, as bytes."""
    return {
        "variables": [variable.numpy().tobytes() for variable in model.variables],
        "metrics": [variable.numpy().tobytes() for variable in model.metrics_variables if np.any(variable)],
        "optimizer": [variable.numpy().tobytes() for variable in model.optimizer.variables],
        "identity": (id(model.optimizer), model.optimizer.built, id(model.train_function), model.steps_per_execution),
        "python": random.getstate(),
        "numpy": repr(np.random.get_state()),
    }


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "schedule": lambda: keras.optimizers.Adam(schedules.CosineDecay(0.01, 100)),
    "function": lambda: keras.optimizers.SGD(lambda: 0.01),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "fresh"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_model_is_as_before(optimizer, trained):
    model = _compiled(OPTIMIZERS[optimizer](), trained)
    before = _state(model)
    curve = kerasbn.find_learning_rate(model, (X, Y), steps=30)
    assert _state(model) == before
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed)
    assert len(set(curve.losses)) > 10, "a model that does not train tells nothing"


def test_a_model_with_normalized_recurrent_layers_is_as_before():
    steps = np.where(np.arange(4)[:, None] < 3, X.reshape(96, 4, 3), 0)
    both = L.Bidirectional(BatchNormalizedRNN(L.GRU(4, return_sequences=True, dropout=0.2)))
    stack = BatchNormalizedRNN(L.RNN([L.SimpleRNNCell(4), L.LSTMCell(4)], stateful=True))
    model = keras.Sequential([keras.Input(batch_shape=(32, 4, 3)), L.Masking(), both, stack, L.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(steps, Y, batch_size=32, verbose=0)
    assert all(np.any(norm.seen_batches) for norm in (*both.forward_layer.norms, *stack.norms))
    before = [*_state(model).items(), [variable.numpy().tobytes() for variable in keras.tree.flatten(stack.states)]]
    kerasbn.find_learning_rate(model, (steps, Y), steps=20)
    now = [*_state(model).items(), [variable.numpy().tobytes() for variable in keras.tree.flatten(stack.states)]]
    assert now == before


def _unbuilt():
    return keras.Sequential([L.Dense(16, "relu"), L.BatchNormalization(), L.Dropout(0.5), L.Dense(3, "softmax")])


class LateLayer(L.Layer):
    """Makes a layer and a weight when it is built."""

    def build(self, shape):
        self.inner = L.Dense(16, kernel_initializer=keras.initializers.GlorotNormal(keras.random.SeedGenerator(4)))
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(16,), initializer="ones")

    def call(self, x):
        return self.inner(x) * self.scale


class Unbuilt(keras.Model):
    """A subclassed model of layers that are built when they are first called."""

    def __init__(self):
        super().__init__()
        self.late, self.norm, self.head = LateLayer(), L.BatchNormalization(), L.Dense(3, "softmax")

    def call(self, x, training=None):
        return self.head(self.norm(self.late(x), training=training))


@pytest.mark.parametrize("eagerly", [False, True], ids=["compiled", "eagerly"])
@pytest.mark.parametrize("make", [_unbuilt, Unbuilt])
def test_what_is_built_on_the_way_is_as_if_built_by_hand(make, eagerly):
    expected = None
    for look in (False, True):
        keras.utils.set_random_seed(5)
        model = make()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=eagerly)
        if look:
            kerasbn.find_learning_rate(model, (X, Y), steps=20)
        else:
            model(X)
        values = [variable.numpy() for variable in model.variables if len(variable.shape)]
        expected = values if expected is None else expected
        for one, other in zip(expected, values, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not model.optimizer.built
    assert not any(np.any(variable) for variable in model.metrics_variables)


class Holder(keras.Model):
    """A model that holds all kinds of state that training changes, in all kinds of places."""

    def __init__(self, built):
        super().__init__()
        self.rnn = L.SimpleRNN(4, stateful=True, unroll=True)
        self.head = L.Dense(3, "softmax")
        self.noise = L.GaussianNoise(0.1)
        self.seeds = {"own": keras.random.SeedGenerator(3)}
        self.second = keras.optimizers.Adam(0.1)
        self.others = [keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), 4.0)]
        self.mean = keras.metrics.Mean(name="mean")
        self.count = tf.Variable(0)
        self.extra = self.add_weight(shape=(2,), initializer="ones", name="extra")
        self(X[:32].reshape(32, 3, 4))
        self.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
        for optimizer in (self.optimizer, self.second, *self.others) if built else ():
            optimizer.build(self.head.trainable_variables)

    def call(self, x, training=None):
        return self.head(self.noise(self.rnn(x), training=training))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        weights = self.head.trainable_variables
        gradients = tape.gradient(loss, weights)
        for optimizer in (self.optimizer, self.second, *self.others):
            optimizer.apply(gradients, weights)
        self.mean.update_state(loss)
        self.count.assign_add(1)
        self.extra.assign(self.extra + keras.random.normal((2,), seed=self.seeds["own"]))
        return {"loss": loss}


def _state_of_holder(model):
    optimizers = (model.optimizer, model.second, *model.others)
    return {
        "variables": [variable.numpy().tobytes() for variable in (*model.variables, *model.rnn.states, model.count)],
        "seeds": [model.seeds["own"].state.numpy().tobytes(), model.noise.seed_generator.state.numpy().tobytes()],
        "iterations": [int(optimizer.iterations) for optimizer in optimizers],
        "slots": [{v.path: v.numpy().tobytes() for v in each.variables} for each in optimizers if each.built],
    }


@pytest.mark.parametrize("ends", ["well", "with an error", "with an interrupt", "in the training step"])
@pytest.mark.parametrize("built", [True, False], ids=["trained", "fresh"])
def test_all_that_a_model_holds_is_as_before(built, ends):
    model = Holder(built)
    sequences = X.reshape(96, 3, 4)
    if built:
        model.fit(sequences, Y, batch_size=32, verbose=0)

    def batches():
        for start in np.tile([0, 32, 64], 5):
            yield sequences[start : start + 32], Y[start : start + 32]
        if ends == "in the training step":
            yield sequences[:32, :, :2], Y[:32]
        if ends != "well":
            raise {"with an error": ZeroDivisionError, "with an interrupt": KeyboardInterrupt}[ends]

    before = _state_of_holder(model)
    trained = []
    with _keras.observed([model.head], lambda *args, **kwargs: trained.append(1)):
        if ends == "well":
            assert len(set(kerasbn.find_learning_rate(model, batches(), highest=1e-3).losses)) > 10
        else:
            with pytest.raises((ZeroDivisionError, KeyboardInterrupt, kerasbn.OptionError)):
                kerasbn.find_learning_rate(model, batches(), highest=1e-3)
    assert trained
    after = _state_of_holder(model)
    if not built:  # what was not built is built now, and has the slots that it begins with
        for optimizer in (model.second, *model.others):
            twin = type(optimizer).from_config(optimizer.get_config())
            twin.build(model.head.trainable_variables)
            for ours, theirs in zip(optimizer.variables, twin.variables, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        before.pop("slots")
        after.pop("slots")
    assert after == before
    assert "train_step" not in vars(model)


def test_training_goes_on_as_if_nothing_had_happened():
    results = []
    for look in (False, True):
        keras.utils.set_random_seed(5)
        model = _compiled(keras.optimizers.Adam(0.01))
        if look:
            kerasbn.find_learning_rate(model, (X, Y), steps=20)
        model.fit(X, Y, verbose=0)
        results.append([variable.numpy() for variable in model.variables if variable.dtype == "float32"])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_interrupt_leaves_nothing_behind():
    def interrupted():
        for start in range(0, 96, 32):
            yield X[start : start + 32], Y[start : start + 32]
        raise KeyboardInterrupt

    model = _compiled()
    before = _state(model)
    with pytest.raises(KeyboardInterrupt):
        kerasbn.find_learning_rate(model, interrupted())
    assert _state(model) == before


DATA = {
    "arrays": lambda: (X, Y),
    "with weights": lambda: (X, Y, np.ones(96)),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),
    "generator": lambda: ((X[:32], Y[:32]) for _ in range(15)),
}


@pytest.mark.parametrize("data", DATA)
def test_forms_of_data(data):
    curve = kerasbn.find_learning_rate(_compiled(), DATA[data](), lowest=1e-4, highest=1e-3, steps=20)
    rates = np.geomspace(1e-4, 1e-3, 20)
    np.testing.assert_allclose(curve.rates, rates[: len(curve.rates)])
    assert len(curve.rates) == (15 if data == "generator" else 20)
    assert curve.suggestion == curve.suggestions["minimum"]
    assert all(curve.rates[0] / 2 <= rate <= curve.rates[-1] for rate in curve.suggestions.values())


def test_it_ends_where_the_loss_diverges():
    curve = kerasbn.find_learning_rate(_compiled(), (X, Y), highest=1e6, steps=220)
    assert curve.rates[-1] < 1e6
    assert curve.suggestions["slide"] == curve.rates[-1] / 4
    assert np.all(np.isfinite(curve.losses))


def test_a_step_is_as_many_batches_as_gradients_are_accumulated_over():
    model = _compiled(keras.optimizers.Adam(0.01, gradient_accumulation_steps=3), trained=False)
    batches = [(X[start : start + 32], Y[start : start + 32]) for start in np.tile([0, 32, 64], 40)]
    before = _state(model)
    curve = kerasbn.find_learning_rate(model, iter(batches), highest=1e-3, steps=30)
    assert _state(model) == before
    assert len(curve.rates) == 30
    few = kerasbn.find_learning_rate(model, iter(batches[:37]), highest=1e-3, steps=30)
    assert len(few.rates) == 12, "a step that was not made tells nothing"


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_losses_of_validation(kind):
    model = sequential(L.Dense(16, "relu"))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    held_out = (X[:48], Y[:48]) if kind == "arrays" else tf.data.Dataset.from_tensor_slices((X[:48], Y[:48])).batch(20)
    expected = model.evaluate(X[:48], Y[:48], verbose=0)[0]
    model.reset_metrics()
    before = _state(model)
    curve = kerasbn.find_learning_rate(model, (X, Y), lowest=1e-9, highest=1e-8, steps=10, validation_data=held_out)
    assert _state(model) == before
    np.testing.assert_allclose(curve.losses, np.full(10, expected), rtol=1e-4)


COURSES = {
    "falls": (np.linspace(2.3, 0.1, 30), False),
    "stays": (np.full(30, 2.3), False),
    "stays and rises": (np.r_[np.full(20, 2.3), np.full(10, 3.5)], True),
    "falls and comes back to where it began, as units die": (np.r_[np.linspace(2.3, 0.5, 20), np.full(10, 2.3)], True),
    "falls and comes half the way back": (np.r_[np.linspace(2.3, 0.1, 20), np.full(10, 1.2)], False),
    "one bad batch": (np.r_[np.linspace(2.3, 0.5, 20), 2.3, np.full(4, 0.5)], False),
    "below zero": (np.r_[np.linspace(-1.0, -3.0, 20), np.full(10, -1.0)], True),
    "stays below zero": (np.full(30, -2.0), False),
    "not a number": (np.r_[np.linspace(2.3, 0.5, 20), np.nan], True),
    "noise": (2.3 + 0.5 * np.random.default_rng(0).normal(size=400), False),
    "falls, and is noisy": (
        np.linspace(3.0, 2.0, 400) + 0.5 * np.random.default_rng(0).normal(size=400),
        False,
    ),
    "few": (np.array([2.3, 4.0]), False),
}


@pytest.mark.parametrize("course", COURSES)
def test_when_the_loss_has_diverged(course):
    losses, diverged = COURSES[course]
    assert any(_has_diverged(list(losses[: count + 1])) for count in range(len(losses))) is diverged


@pytest.mark.tensorflow
def test_a_model_with_a_training_step_of_its_own():
    class Halved(keras.Model):
        def train_step(self, data):
            return {"loss": super().train_step(data)["loss"] / 2}

    inputs = keras.Input((12,))
    model = Halved(inputs, L.Dense(3, "softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=4)
    assert kerasbn.find_learning_rate(model, (X, Y), steps=20).rates


class OfTheGuide(keras.Model):
    """Trains as the guides of keras.io have it."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class OfWeights(OfTheGuide):
    def train_step(self, data):
        x, y, sample_weight = data
        assert sample_weight is not None
        return super().train_step((x, y))


class OfInputs(OfTheGuide):
    def train_step(self, data):
        return super().train_step((data, keras.ops.zeros(32)))


class OfADict(OfTheGuide):
    def train_step(self, data):
        return super().train_step((data["x"], data["y"]))


class OfATuple(OfTheGuide):
    def train_step(self, data):
        (x,) = data
        return super().train_step((x, keras.ops.zeros(32)))


def _batched(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays).batch(32)


AS_FIT_GIVES_IT = {
    "two": (OfTheGuide, lambda: (X, Y)),
    "two, of a dataset": (OfTheGuide, lambda: _batched(X, Y)),
    "two, of a generator": (OfTheGuide, lambda: itertools.cycle([(X[:32], Y[:32])])),
    "two, in lists": (OfTheGuide, lambda: itertools.cycle([[X[:32], Y[:32]]])),
    "three": (OfWeights, lambda: (X, Y, np.ones(96))),
    "three, of a dataset": (OfWeights, lambda: _batched(X, Y, np.ones(96))),
    "inputs": (OfInputs, lambda: X),
    "inputs, of a dataset": (OfInputs, lambda: _batched(X)),
    "a dict": (OfADict, lambda: {"x": X, "y": Y}),
    "a tuple of one": (OfATuple, lambda: itertools.cycle([(X[:32],)])),
}


@pytest.mark.parametrize("case", AS_FIT_GIVES_IT)
def test_a_training_step_gets_its_batch_as_from_fit(case):
    kind, data = AS_FIT_GIVES_IT[case]
    inputs = keras.Input((12,))
    model = kind(inputs, L.Dense(3, "softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert len(kerasbn.find_learning_rate(model, data(), highest=1e-2, steps=12).rates) == 12


class Adversaries(keras.Model):
    """Two networks that train each other, without a call."""

    def __init__(self, logs):
        super().__init__()
        self.critic, self.artist = (keras.Sequential([keras.Input((12,)), L.Dense(12)]) for _ in range(2))
        self._logs = logs
        self.compile(keras.optimizers.Adam(), keras.optimizers.Adam())

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def train_step(self, x):
        for network, optimizer in ((self.critic, self.d_optimizer), (self.artist, self.g_optimizer)):
            with tf.GradientTape() as tape:
                loss = keras.ops.mean(network(x) ** 2)
            optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        return dict.fromkeys(self._logs, loss)


class WithoutLoss(OfTheGuide):
    def train_step(self, data):
        return {"objective": super().train_step(data)["loss"]}


class WithoutLogs(OfTheGuide):
    def train_step(self, data):
        return super().train_step(data)["loss"]


def _guided(kind):
    inputs = keras.Input((12,))
    model = kind(inputs, L.Dense(3, "softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class OfKeras2:
    name, compiled = "old", True


OfKeras2.__module__ = "tf_keras.src.engine.sequential"


def test_plot(tmp_path):
    curve = kerasbn.find_learning_rate(_compiled(), (X, Y), steps=20)
    curve.plot(tmp_path / "curve.png")
    curve.plot(tmp_path / "curve.svg")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in (tmp_path / "curve.svg").read_text() for name in curve.suggestions)


def test_plot_without_matplotlib(tmp_path, monkeypatch):
    curve = kerasbn.find_learning_rate(_compiled(), (X, Y), steps=20)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(kerasbn.OptionError, match=r"kerasbn\[plot\]"):
        curve.plot(tmp_path / "curve.png")


BAD = {
    "not compiled": (lambda: (sequential(L.Dense(4)), (X, Y), {}), "never compiled"),
    "rates": (lambda: (_compiled(), (X, Y), {"lowest": 1.0, "highest": 0.1}), "lowest=1.0"),
    "steps": (lambda: (_compiled(), (X, Y), {"steps": 3}), "steps is 3"),
    "batch size": (lambda: (_compiled(), (X, Y), {"batch_size": 0}), "batch_size is 0"),
    "no data": (lambda: (_compiled(), (X[:0], Y[:0]), {}), "holds no batch"),
    "too little data": (lambda: (_compiled(), iter([(X, Y)]), {}), "ended after 1 batches"),
    "another kind": (lambda: (_compiled(), object(), {}), "cannot be taken batch by batch"),
    "no loss": (lambda: (_guided(WithoutLoss), (X, Y), {}), "returns objective, and no 'loss'"),
    "no logs": (lambda: (_guided(WithoutLogs), (X, Y), {}), "no 'loss'"),
    "two networks": (
        lambda: (Adversaries(["d_loss"]), X, {}),
        "no step with .*d_optimizer, g_optimizer",
    ),
    "two networks, one loss": (lambda: (Adversaries(["loss"]), X, {}), "no step with model.optimizer.*d_optimizer"),
    "none": (lambda: (_compiled(), None, {}), "it is None"),
    "numbers": (lambda: (_compiled(), (X.tolist(), Y.tolist()), {}), "numpy.asarray"),
    "four arrays": (lambda: (_compiled(), (X, Y, Y, Y), {}), "a tuple of 4"),
    "no arrays": (lambda: (_compiled(), (), {}), "a tuple of 0"),
    "a list": (lambda: (_compiled(), [X, Y], {}), r"Pass what model.fit takes: a tuple of arrays \(x, y\)"),
    "without targets": (lambda: (_compiled(), X, {}), "cannot be trained on option data"),
    "validation without targets": (
        lambda: (_compiled(), (X, Y), {"validation_data": X}),
        "cannot be evaluated on option validation_data",
    ),
    "no validation": (lambda: (_compiled(), (X, Y), {"validation_data": (X[:0], Y[:0])}), "validation_data holds no"),
    "another width": (lambda: (_compiled(), (X[:, :3], Y), {}), "cannot be trained on option data"),
    "a batch is none": (lambda: (_compiled(), iter([None] * 20), {}), "cannot be trained on option data"),
    "batches without examples": (lambda: (_compiled(), iter([(X[:0], Y[:0])] * 20), {}), "ended after 0 batches"),
    "labels that there are not": (lambda: (_compiled(), (X, Y + 100), {}), "on option data: Received a label value"),
    "always diverging": (lambda: (_compiled(), (X, Y), {"lowest": 1e8, "highest": 1e12}), "diverges"),
}


@pytest.mark.parametrize("case", [*list(BAD)[:-1], pytest.param("always diverging", marks=pytest.mark.tensorflow)])
def test_what_cannot_be_tested(case):
    model, data, options = BAD[case][0]()
    with pytest.raises(kerasbn.OptionError, match=BAD[case][1]):
        kerasbn.find_learning_rate(model, data, **options)


@pytest.mark.parametrize("make", [OfKeras2, lambda: None, lambda: "model.keras", L.BatchNormalization])
def test_what_is_no_model(make):
    with pytest.raises(kerasbn.UnsupportedModelError, match="Expected a Keras 3 model"):
        kerasbn.find_learning_rate(make(), (X, Y))
