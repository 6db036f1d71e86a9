"""Rewrites compared on models that are really trained, a few steps each."""

import itertools
import json
import random

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.comparison.batches import Batches
from kerasbn.comparison.candidates import candidates_of
from tests.helpers import sequential, snapshot

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(128, 12)).astype("float32")
Y = np.argmax(X[:, :3], axis=1)
TRAIN, VALIDATION = (X[:96], Y[:96]), (X[96:], Y[96:])
EAGERLY = keras.backend.backend() == "tensorflow"  # nothing is compiled for a few steps
FAST = {"candidates": ("none", "after"), "rates": "compiled", "budget": 8, "seeds": 2}


def _compiled(*layers, optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=("accuracy",)):
    keras.utils.set_random_seed(0)
    model = sequential(*(layers or (L.Dense(16, "relu", name="fc"), L.Dropout(0.5, name="drop"))))
    model.compile(optimizer, loss, metrics=list(metrics), run_eagerly=EAGERLY)
    return model


def _compare(model, data=TRAIN, validation_data=VALIDATION, **options):
    return kerasbn.compare(model, data, validation_data=validation_data, **{**FAST, **options})


@pytest.fixture(scope="module")
def compared():
    model = _compiled(optimizer=keras.optimizers.Adam(0.01))
    model.fit(*TRAIN, verbose=0)
    random.seed(3)
    np.random.seed(3)
    before = snapshot(model), random.getstate(), repr(np.random.get_state())
    comparison = _compare(model, candidates=("none", "auto", "before"), rates="find", seeds=[5, 7])
    return model, before, comparison


def test_the_model_and_the_random_state_are_as_before(compared):
    model, before, _ = compared
    assert (snapshot(model), random.getstate(), repr(np.random.get_state())) == before
    assert model.optimizer.iterations == 3


def test_what_comes_to_the_same_plan_is_trained_once(compared):
    *_, comparison = compared
    assert [(row.candidate, row.same) for row in comparison.rows] == [("none", ()), ("auto", ("before",))]
    assert "auto (the same: before)" in str(comparison)


def test_candidates_have_names_of_their_own_or_those_of_their_options():
    given = ("none", kerasbn.recipes.BN_X5, {"position": "after", "dropout": "all"}, {"learning_rate_scale": 2.0})
    names = ["none", "bn-x5", "position='after', dropout='all'", "learning_rate_scale=2.0"]
    assert [each.name for each in candidates_of(_compiled(), given)] == names
    mine = {"mine": "after", "same": {"position": "after"}, "other": {"learning_rate_scale": 3.0}}
    assert [(each.name, each.same) for each in candidates_of(_compiled(), mine)] == [("mine", ("same",)), ("other", ())]


def test_best_rewrites_the_model(compared):
    model, _, comparison = compared
    best = next(row for row in comparison.rows if not row.is_beaten)
    rewritten = kerasbn.rewrite(model, **comparison.best)
    assert float(rewritten.optimizer.learning_rate) == pytest.approx(best.rate)
    assert isinstance(rewritten.layers[1], L.BatchNormalization) == (best.candidate != "none")


def test_all_that_it_shows_says_the_verdict(compared, tmp_path):
    *_, comparison = compared
    told = comparison.to_dict()
    json.dumps(told, allow_nan=False)
    assert told["verdict"] == comparison.verdict
    assert {each["outcome"] for each in told["candidates"]} <= {"leads", "level", "behind", "diverged"}
    page = comparison.to_html()
    assert page.startswith("<!DOCTYPE html>")
    assert all(len(row.scores) == len(comparison.seeds) == 2 for row in comparison.rows)
    for shown in (str(comparison), page, comparison._repr_html_()):
        assert "seeds" in shown
        assert "accuracy" in shown
    comparison.plot(tmp_path / "comparison.svg")
    assert "<svg" in (tmp_path / "comparison.svg").read_text()


def test_seeds_decide_everything():
    model = _compiled()
    one, other = (_compare(model, seeds=seeds, monitor="loss") for seeds in (2, [1, 2]))
    for row, again in zip(one.rows, other.rows, strict=True):
        first, second, third = row.scores[0], row.scores[1], again.scores[1]
        assert second == again.scores[0]
        assert len({first, second, third}) == 3


def test_the_model_as_it_is_trains_as_fit_would():
    model = _compiled(L.Dense(16, "relu"), optimizer=keras.optimizers.Adam(0.01))
    (row, _) = _compare(model, budget=6, batch_size=16).rows
    order = np.random.default_rng(1).permutation(96)
    model.fit(X[order], Y[order], batch_size=16, shuffle=False, verbose=0)
    assert row.scores[1] == pytest.approx(model.evaluate(*VALIDATION, verbose=0, return_dict=True)["accuracy"])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.head = L.Dense(16, "relu"), L.Dropout(0.5), L.Dense(3, "softmax")

    def call(self, x, training=None):
        return self.head(self.drop(self.fc(x), training=training))


class OwnStep(keras.Model):
    """Trains in its own way, on pairs alone."""

    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([keras.Input((12,)), L.Dense(16, "relu"), L.Dense(3, "softmax")])

    def call(self, x):
        return self.net(x)

    def train_step(self, *arguments):
        *_, (x, y) = arguments
        return super().train_step(*arguments[:-1], (x, y))


def _built(model):
    model(X[:2])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=EAGERLY)
    return model


def _two_heads():
    inputs = keras.Input((12,), name="x")
    x = L.Dense(16, "tanh")(inputs)
    model = keras.Model(inputs, {"kind": L.Dense(3, "softmax", name="kind")(x), "size": L.Dense(1, name="size")(x)})
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    model.compile(keras.optimizers.SGD(0.5), losses, metrics={"kind": "accuracy"}, run_eagerly=EAGERLY)
    return model


def _heads(x, y):
    return x, {"kind": y, "size": x[:, :1]}


MODELS = {
    "regression": (lambda: _compiled(loss="mse", metrics=("mae",)), lambda x, y: (x, np.eye(3)[y]), "mae"),
    "two heads": (_two_heads, _heads, "kind_accuracy"),
    "subclassed": (lambda: _built(Subclassed()), lambda x, y: (x, y), "loss"),
    "own step": (lambda: _built(OwnStep()), lambda x, y: (x, y), "loss"),
    "weights": (_compiled, lambda x, y: (x, y, np.linspace(0.5, 1, len(x))), "accuracy"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_of_all_kinds(case):
    make, data, monitor = MODELS[case]
    comparison = _compare(make(), data(*TRAIN), data(*VALIDATION))
    assert comparison.monitor == monitor
    assert len({score for row in comparison.rows for score in row.scores}) > 1
    assert kerasbn.rewrite(make(), **comparison.best)


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return tuple(each[16 * index : 16 * index + 16] for each in TRAIN)


@pytest.mark.tensorflow
def test_datasets():
    import tensorflow as tf

    data, validation = (tf.data.Dataset.from_tensor_slices(each).batch(16) for each in (TRAIN, VALIDATION))
    for each, count in ((data, 6), (Sequence(), 6), (data.repeat(), None)):
        batches = Batches(each, 7)
        assert batches.count == count
        one, other, third = ([y for _, y in itertools.islice(batches.in_order_of(seed), 6)] for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, other)
        assert np.any(np.not_equal(one, third))
    assert [row.steps for row in _compare(_compiled(), Sequence(), validation).rows] == [8, 8]


def test_a_schedule_is_kept():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    comparison = _compare(_compiled(optimizer=keras.optimizers.SGD(schedule)), rates="find")
    assert [row.rate for row in comparison.rows] == [None, None]
    assert "its schedule" in str(comparison)
    assert "was kept as it is" in str(comparison)
    assert "learning_rate_scale" not in comparison.best


def test_rates_of_the_grid_are_relative_to_the_compiled_one():
    for row in _compare(_compiled(), candidates=({"position": "after"}, "bn-x5"), rates=(0.1,)).rows:
        assert row.options["learning_rate_scale"] == pytest.approx(row.rate / 0.01)


def test_a_loss_with_penalties_is_noted():
    model = _compiled(L.Dense(16, "relu", kernel_regularizer="l2"))
    assert "penalties of regularizers" in str(_compare(model, monitor="val_loss"))


def test_diverging_everywhere_is_an_error():
    model = _compiled(L.Dense(16, "relu"), optimizer=keras.optimizers.SGD(1e30), loss="mse", metrics=())
    with pytest.raises(kerasbn.OptionError, match=r"stays finite.*Pass lower rates"):
        _compare(model, (X, X[:, :3]), (X, X[:, :3]), candidates=("none", {"rules": [("*", "skip")], "l2": 0.1}))


def test_an_interrupt_gives_what_there_is_and_leaves_the_model(monkeypatch):
    model = _compiled()
    before = snapshot(model)
    fresh = type(model).evaluate
    calls = itertools.count()

    def evaluate(self, *arguments, **named):
        if next(calls) == 4 + 6:  # two for each of two candidates, four for the first look
            raise KeyboardInterrupt
        return fresh(self, *arguments, **named)

    monkeypatch.setattr(type(model), "evaluate", evaluate)
    comparison = _compare(model)
    assert comparison.is_cut
    assert {row.steps for row in comparison.rows} == {1}
    assert "interrupted" in str(comparison)
    assert comparison.to_dict()["interrupted"]
    assert snapshot(model) == before


class Batched(keras.utils.PyDataset):
    """So many batches of validation data; `None`: without an end."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return VALIDATION


REFUSED = {
    "not compiled": (lambda: sequential(L.Dense(4, "relu")), {}, "never compiled.*Call model.compile"),
    "no data": (_compiled, {"data": None}, "Option data is missing"),
    "no validation": (_compiled, {"validation_data": None}, "Option validation_data is missing"),
    "generator": (_compiled, {"data": iter([TRAIN])}, "gives its batches once"),
    "sizes": (_compiled, {"data": (X, Y[:9])}, "arrays of 9, 128 examples"),
    "tuple": (_compiled, {"data": (X,)}, r"tuple of 1; it must be \(x, y\)"),
    "unfit": (_compiled, {"data": (X[:, :5], Y)}, "cannot be trained on option data"),
    "endless validation": (_compiled, {"validation_data": Batched(None)}, "Option validation_data never ends"),
    "empty validation": (_compiled, {"validation_data": Batched(0)}, "Option validation_data holds no batch"),
    "unfit validation": (_compiled, {"validation_data": (X[:, :5], Y)}, "evaluated on option validation_data"),
    "one candidate": (_compiled, {"candidates": ("after",)}, "at least two different"),
    "a word": (_compiled, {"candidates": "after"}, r"several, such as \('none', 'after'\)"),
    "unknown candidate": (
        _compiled,
        {"candidates": ("none", "behind")},
        "holds 'behind'; a candidate is one of 'none'",
    ),
    "unknown option": (
        _compiled,
        {"candidates": ("none", {"positon": "after"})},
        "Candidate .*Did you mean 'position'",
    ),
    "fold": (_compiled, {"candidates": ("none", {"fold": True})}, "has the option fold.*Leave it out"),
    "copy": (_compiled, {"candidates": ("none", {"copy": False})}, "has the option copy.*Leave it out"),
    "one plan": (lambda: _compiled(L.Flatten()), {"candidates": ("none", "auto")}, "none, auto all come to one plan"),
    "budget": (_compiled, {"budget": "long"}, "Option budget is 'long'"),
    "small budget": (_compiled, {"data": (X, Y), "batch_size": 4}, "8 steps, and a pass over the data has 32"),
    "seeds": (_compiled, {"seeds": 1}, "Option seeds is 1"),
    "same seeds": (_compiled, {"seeds": (1, 1)}, "Option seeds is"),
    "rates": (_compiled, {"rates": (0.1, -1)}, "Option rates is"),
    "batch size": (_compiled, {"batch_size": 0}, "Option batch_size is 0"),
    "monitor": (_compiled, {"monitor": "acc"}, "Option monitor is 'acc'.*'accuracy', 'loss'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_error(case):
    make, options, message = REFUSED[case]
    model = make()
    before = snapshot(model)
    with pytest.raises(kerasbn.OptionError, match=message):
        _compare(model, **options)
    assert snapshot(model) == before
