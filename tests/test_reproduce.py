"""The reproductions: their shared parts, and one of them run for a few steps."""

import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def _reproduce(*arguments):
    return CliRunner().invoke(importlib.import_module("reproduce").main, list(map(str, arguments)))


def test_a_quick_run_writes_a_table_and_a_plot(tmp_path):
    run = _reproduce("circles", "--seeds", 1, "--sweep-seeds", 1, "--quick", "--output", tmp_path)
    assert run.exit_code == 0, run.output
    text = (tmp_path / "circles.md").read_text()
    assert "python tools/reproduce.py circles" in text
    assert {"no BN", "before", "after"} <= {line.split("|")[1].strip() for line in text.splitlines() if "|" in line}
    assert "<svg" in (tmp_path / "circles.svg").read_text()


def test_what_has_names_is_drawn_by_name(tmp_path):
    report, plot = (importlib.import_module(f"reproduction.{name}") for name in ("report", "plot"))
    line = report.Line("with", [0, 1], [0.8, 0.9], [0.7, 0.8], [0.9, 1.0])
    plot.draw(
        [report.Panel("By activation", "activation", "accuracy", [line], names=["tanh", "relu"])], tmp_path / "a.svg"
    )
    assert all(f"<!-- {text} -->" in (tmp_path / "a.svg").read_text() for text in ("tanh", "relu", "with", "accuracy"))


def test_a_quick_run_does_not_replace_the_figures_in_docs():
    run = _reproduce("circles", "--quick")
    assert run.exit_code == 2
    assert "say with --output" in run.output


def test_every_experiment_states_its_claim_and_can_be_named():
    names = {path.stem for path in (TOOLS / "reproduction" / "experiments").glob("*.py")} - {"__init__"}
    reproduce = importlib.import_module("reproduce")
    assert {*reproduce.EXPERIMENTS, *reproduce.PAPER} == names
    for name in names:
        experiment = importlib.import_module(f"reproduction.experiments.{name}")
        claim, _, text = experiment.__doc__.strip().partition("\n\n")
        assert claim.endswith(".")
        assert text
        assert callable(experiment.run)


def _experiment(name):
    return importlib.import_module(f"reproduction.experiments.{name}")


NETWORKS = {
    "inception": lambda: [importlib.import_module("reproduction.small_inception").small_inception((28, 28, 1))],
    "auxiliary_head": lambda: [
        _experiment("auxiliary_head")._maker((28, 28, 1), *head, rate=0.1, steps=10)(0)
        for head in _experiment("auxiliary_head").NETWORKS.values()
    ],
    "resnets": lambda: [make(0) for make in _experiment("resnets")._networks(20, (28, 28, 1)).values()],
    "default": lambda: [build() for build, *_ in _experiment("default")._kinds().values()],
    "trained": lambda: [build() for build, *_ in _experiment("trained").NETWORKS.values()],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_take_hours_to_train_can_be_built(name):
    for model in NETWORKS[name]():
        assert model.built
        assert model.outputs[0].shape[-1] in (1, 10, 64)


def test_parts_do_not_overlap():
    data = importlib.import_module("reproduction.data")
    for load in (data.digits, data.digit_images, data.signals, data.circles):
        parts = load()
        sizes = [len(labels) for _, labels in (parts.train, parts.validation, parts.test)]
        assert sizes[0] > 2 * min(sizes[1:])
        rows = [row.tobytes() for inputs, _ in (parts.train, parts.validation, parts.test) for row in inputs]
        assert len(rows) == sum(sizes)
        assert len(set(rows)) > 0.99 * len(rows)
        np.testing.assert_array_equal(load().test[0], parts.test[0])


def _network(seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(8, activation="relu"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("xla", [False, True])
def test_a_run_trains_as_fit_does(xla):
    data, training = (importlib.import_module(f"reproduction.{name}") for name in ("data", "training"))
    circles = data.circles()
    trainer = training.Trainer(_network(0), circles, every=50, xla=xla)
    trainer.run(_network(1), 0.3, seed=1, steps=50)  # leaves nothing behind for the next one
    run = trainer.run(_network(2), 0.1, seed=3, steps=50)
    order = np.random.default_rng(3).permutation(len(circles.train[0]))[:3000]
    peer = _network(2)
    peer.fit(*(part[order] for part in circles.train), batch_size=60, shuffle=False, verbose=0)
    for ours, theirs in zip(trainer.model.weights, peer.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    inputs, labels = circles.test
    right = np.argmax(peer.predict(inputs, verbose=0), -1) == labels
    assert run.test[-1] == pytest.approx(np.mean(right), abs=2e-3)


def test_a_run_is_scored_by_what_is_asked_for():
    data, training = (importlib.import_module(f"reproduction.{name}") for name in ("data", "training"))
    circles = data.circles()

    def likelihood(labels, logits):
        return -keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    trainer = training.Trainer(_network(0), circles, every=10, score=likelihood)
    run = trainer.run(_network(1), 0.1, seed=1, steps=20)
    for scores, (inputs, labels) in ((run.validation, circles.validation), (run.test, circles.test)):
        loss = trainer.model.evaluate(inputs, labels, verbose=0, batch_size=len(labels))
        assert scores[-1] == pytest.approx(-loss, rel=1e-4)


def test_what_was_cut_goes_on_where_it_was(tmp_path):
    store = importlib.import_module("reproduction.store").Store
    path, made = tmp_path / "runs.jsonl", []

    def compute(value):
        made.append(value)
        return [value, 0.1]

    assert store(path, "1").kept(("net", 0.3, 0), lambda: compute(1)) == [1, 0.1]
    with path.open("a") as file:
        file.write('\n["cut')
    again = store(path, "1")
    assert again.spent == 0
    assert again.kept(("net", 0.3, 0), lambda: compute(2)) == [1, 0.1]
    assert 0 < again.spent < 10
    assert again.kept(("net", 0.3, 1), lambda: compute(3)) == [3, 0.1]
    assert store(path, "1").kept(("net", 0.3, 1), lambda: compute(4)) == [3, 0.1]
    assert store(path, "2").kept(("net", 0.3, 0), lambda: compute(5)) == [5, 0.1]
    assert store().kept(("net",), lambda: compute(6)) == [6, 0.1]
    assert made == [1, 3, 5, 6]


def test_images_are_moved_by_some_pixels():
    training = importlib.import_module("reproduction.training")
    image = np.zeros((3, 7, 7, 1), "float32")
    image[:, 3, 3] = image[:, 0, 6] = 1
    moved = np.asarray(training.moved(image, np.array([[0, 0], [2, -1], [-1, 2]], "int32"), 2))
    assert moved.shape == image.shape
    assert [each.tolist() for each in np.argwhere(moved[..., 0])] == [
        *([0, 0, 6], [0, 3, 3]),
        *([1, 2, 5], [1, 5, 2]),
        [2, 2, 5],
    ]


def test_local_response_normalization():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 24)).astype("float32")
    given = importlib.import_module("reproduction.small_inception").LRN()(x)
    np.testing.assert_allclose(given, tf.nn.local_response_normalization(x), rtol=1e-5)


def test_large_digits(tmp_path):
    data = importlib.import_module("reproduction.data")
    parts = {"x_train": np.full((60, 28, 28), 255, "uint8"), "y_train": np.arange(60, dtype="uint8")}
    parts |= {"x_test": np.zeros((9, 28, 28), "uint8"), "y_test": np.arange(9, dtype="uint8")}
    np.savez(tmp_path / "mnist.npz", **parts)
    digits = data.large_digit_images(tmp_path / "mnist.npz")
    assert [len(labels) for _, labels in (digits.train, digits.validation, digits.test)] == [50, 10, 9]
    assert {*digits.train[1], *digits.validation[1]} == {*range(60)}
    assert digits.shape == (28, 28, 1)
    assert digits.train[0].max() == 1
    assert data.large_digit_images(None).shape == (8, 8, 1)


def test_steps_to_an_accuracy():
    training = importlib.import_module("reproduction.training")
    run = training.Run(every=10, validation=np.array([0.1, 0.9, 0.8]), test=np.array([0.2, 0.3, 0.5]))
    assert run.steps_to(0.5) == 30
    assert run.steps_to(0.85, part="validation") == 20
    assert run.steps_to(0.95, limit=30) == 30
    assert run.steps_to(0.95) == np.inf


def test_the_best_rate_is_chosen_by_validation_on_seeds_that_are_not_reported(monkeypatch):
    comparison = importlib.import_module("reproduction.comparison")
    seen = {}

    class Trainer:
        def __init__(self, *arguments, **options):
            pass

        def run(self, start, rate, seed, steps, stop_at):
            seen.setdefault(rate, []).append(seed)
            return comparison.Run(10, np.array([1 - abs(rate - 0.3)]), np.array([rate]))

    monkeypatch.setattr(comparison, "Trainer", Trainer)
    candidate = comparison.Candidate("it", lambda seed: None, (0.1, 0.3, 1.0))
    (result,) = comparison.compare([candidate], comparison.Task(None, 10), comparison.Budget(4, 2))
    assert result.rate == 0.3
    assert not result.at_edge
    assert [run.test[0] for run in result.runs] == [0.3] * 4
    assert seen[0.1] == seen[1.0] == [1000, 1001]
    assert seen[0.3] == [1000, 1001, 0, 1, 2, 3]


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    intervals = importlib.import_module("reproduction.intervals")
    generator = np.random.default_rng(0)
    held = {"median": 0, "mean": 0, "ratio": 0}
    for _ in range(30):
        one, other = generator.normal(10, 1, (2, 20))
        found = {
            "median": (intervals.median(one), 10),
            "mean": (intervals.mean(one), 10),
            "ratio": (intervals.ratio_of_medians(2 * one, other), 2),
        }
        for name, (estimate, truth) in found.items():
            assert estimate.low <= estimate.value <= estimate.high
            held[name] += estimate.low <= truth <= estimate.high
    assert all(count >= 24 for count in held.values()), held
    assert any(count < 30 for count in held.values()), held


def test_one_seed_has_no_interval():
    intervals = importlib.import_module("reproduction.intervals")
    assert intervals.median([120.0]).text("{:.0f}".format) == "120"
    assert intervals.median([100.0, 120.0]).text("{:.0f}".format) == "110 [100, 120]"
