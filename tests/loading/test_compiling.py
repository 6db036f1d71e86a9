"""What models of Keras 2 were compiled with, in the words of Keras 2 and of its optimizers before 2.11."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasbn.loading.compiling import compiled
from kerasbn.loading.contents import Weight
from kerasbn.loading.load import read
from tests.helpers import assert_same_function

NEW = {"weight_decay": None, "clipnorm": None, "jit_compile": False, "is_legacy_optimizer": False, "use_ema": False}
SCHEDULE = {
    "module": "keras.optimizers.schedules",
    "class_name": "ExponentialDecay",
    "config": {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5, "staircase": False, "name": None},
    "registered_name": None,
}


def _model():
    """Both kernels have one shape, so that a mistaken order is not seen by shapes."""
    inputs = keras.Input((3,))
    first = layers.Dense(3, use_bias=False, name="a")(inputs)
    return keras.Model(inputs, [first, layers.Dense(3, use_bias=False, name="b")(inputs)])


def _compiled(optimizer="SGD", loss="mse", weights=(), **training):
    model = _model()
    entry = {"optimizer_config": optimizer} if isinstance(optimizer, dict) else {"optimizer": optimizer}
    return model, list(compiled(model, {**entry, "loss": loss, **training}, weights, {}))


def _rate(optimizer, step):
    optimizer.build([keras.Variable(0.0)])
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


OPTIMIZERS = {
    "a schedule": (
        {"class_name": "Custom>SGD", "config": {"name": "SGD", **NEW, "learning_rate": SCHEDULE, "momentum": 0.9}},
        lambda it: (type(it).__name__, it.momentum, round(_rate(it, 10), 6)) == ("SGD", 0.9, 0.05),
    ),
    "decay": (
        {"class_name": "Adam", "config": {"name": "Adam", "learning_rate": 0.1, "decay": 0.01, "amsgrad": True}},
        lambda it: it.amsgrad and round(_rate(it, 100), 6) == 0.05,
    ),
    "no decay": (
        {"class_name": "SGD", "config": {"name": "SGD", "learning_rate": 0.25, "decay": 0.0, "nesterov": True}},
        lambda it: it.nesterov and _rate(it, 100) == 0.25,
    ),
    "scaled": (
        {
            "class_name": "LossScaleOptimizerV3",
            "config": {
                "inner_optimizer": {"class_name": "Adam", "config": {"name": "Adam", **NEW, "learning_rate": 0.25}},
                "dynamic": True,
                "initial_scale": 1024.0,
                "dynamic_growth_steps": 500,
            },
        },
        lambda it: (it.initial_scale, it.dynamic_growth_steps, _rate(it, 0)) == (1024.0, 500, 0.25),
    ),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_optimizers(case):
    entry, holds = OPTIMIZERS[case]
    model, notes = _compiled(entry)
    assert holds(model.optimizer)
    assert notes == ["The optimizer starts afresh: its state is not in the file."]


# Of each optimizer before Keras 2.11, what it keeps of each weight, in its order, and what that is in Keras 3.
KEPT = {
    "SGD": ({"momentum": 0.9}, {"momentum": "momentum"}),
    "Adam": ({}, {"m": "momentum", "v": "velocity"}),
    "Adam, AMSGrad": ({"amsgrad": True}, {"m": "momentum", "v": "velocity", "vhat": "velocity_hat"}),
    "Adamax": ({}, {"m": "momentum", "v": "norm"}),
    "Adadelta": ({}, {"accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var"}),
    "RMSprop": (
        {"momentum": 0.5, "centered": True},
        {"rms": "velocity", "momentum": "momentum", "mg": "average_gradient"},
    ),
}


def _entry(case, config):
    kind = case.partition(",")[0]
    return {"class_name": kind, "config": {"name": kind, "learning_rate": 0.1, "decay": 0.0, **config}}


def _kept(slots):
    kernels = [Weight(f"it/{layer}/kernel/{slot}:0", np.zeros((3, 3), "float32")) for slot in slots for layer in "ab"]
    return [weight._replace(value=weight.value + number) for number, weight in enumerate(kernels, 1)]


@pytest.mark.parametrize("case", KEPT)
def test_what_optimizers_before_2_11_keep(case):
    config, slots = KEPT[case]
    kept = _kept(slots)
    model, notes = _compiled(_entry(case, config), weights=[Weight("it/iter:0", np.array(7)), *kept])
    assert notes == []
    assert int(model.optimizer.iterations) == 7
    found = {each.path.rpartition("/")[2]: float(each[0, 0]) for each in model.optimizer.variables if each.ndim == 2}
    names = [f"{layer}_kernel_{slot}" for slot in slots.values() for layer in "ab"]
    assert found == {name: float(number) for number, name in enumerate(names, 1)}


@pytest.mark.parametrize(
    ("weights", "cause"),
    [
        (_kept(["m"]), "it has 4 variables, and there are 2 in the file"),
        ([*_kept(["m"]), *_kept(["mg"])], "'Adam/a_kernel_velocity' is not in the file"),
        ([*_kept(["m", "v"])[:3], Weight("it/b/kernel/v:0", np.ones((2, 2)))], "of shape (3, 3)"),
    ],
    ids=["too few", "of another optimizer", "of another shape"],
)
def test_a_state_that_does_not_fit_is_left_out_whole(weights, cause):
    model, (note,) = _compiled(_entry("Adam", {}), weights=[Weight("it/iter:0", np.array(7)), *weights])
    assert note.startswith("The optimizer starts afresh: ")
    assert cause in note
    assert int(model.optimizer.iterations) == 0
    assert all(not keras.ops.any(each) for each in model.optimizer.variables if each.ndim == 2)


LOSSES = {
    "a name": ("mse", [0.25, 0.25]),
    "by output": ({"a": "mse", "b": "mae"}, [0.25, 0.5]),
    "a list": (["mae", "mse"], [0.5, 0.25]),
    "a function": ({"class_name": "function", "config": "mean_absolute_error"}, [0.5, 0.5]),
    "objects": (
        {
            "a": {"class_name": "Huber", "config": {"reduction": "auto", "name": "h", "delta": 0.1, "fn": "huber"}},
            "b": {"class_name": "MeanSquaredError", "config": {"reduction": "sum", "name": "m", "fn": "mse"}},
        },
        [0.1 * (0.5 - 0.05), 0.25 * 2],
    ),
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses(case):
    """Of outputs that are all half a unit off; the sum of squares counts two examples, of three outputs each a mean."""
    given, expected = LOSSES[case]
    model, _ = _compiled(loss=given, loss_weights=None)
    y = np.zeros((2, 3), "float32")
    assert float(model.compute_loss(y=[y, y], y_pred=[y + 0.5, y + 0.5])) == pytest.approx(sum(expected), rel=1e-5)


METRICS = {
    "names": (["mae"], {"mae"}),
    "short names": (
        [{"class_name": "MeanMetricWrapper", "config": {"name": "accuracy", "fn": "categorical_accuracy"}}],
        {"accuracy"},
    ),
    "of a function": (
        [{"class_name": "MeanMetricWrapper", "config": {"name": "mine", "fn": "mean_absolute_error"}}],
        {"mean_absolute_error"},
    ),
    "a function": ([{"class_name": "function", "config": "mean_absolute_error"}], {"mean_absolute_error"}),
    "an object": ([{"class_name": "RootMeanSquaredError", "config": {"name": "far", "dtype": "float32"}}], {"far"}),
}


@pytest.mark.parametrize("case", METRICS)
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics(case, weighted):
    given, names = METRICS[case]
    model, _ = _compiled(**{"weighted_metrics" if weighted else "metrics": {"a": given}})
    y = np.zeros((2, 3))
    got = model.evaluate(y, [y, y], verbose=0, return_dict=True)
    assert names <= {name.removeprefix("a_") for name in got}


UNREADABLE = {
    "a loss": ({"loss": {"class_name": "OfMine", "config": {}}}, "--custom-objects MODULE:OfMine"),
    "a metric": ({"metrics": [{"class_name": "OfMine", "config": {}}]}, "--custom-objects MODULE:OfMine"),
    "an optimizer": ({"optimizer": {"class_name": "Custom>OfMine", "config": {}}}, "--custom-objects MODULE:OfMine"),
    "a function": ({"loss": "of_mine"}, "--custom-objects MODULE:of_mine"),
    "an odd name": ({"loss": {"class_name": "a\x1b[31m\nb", "config": {}}}, "Keras 3's nor registered here"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_said(case):
    training, remedy = UNREADABLE[case]
    model, (note,) = _compiled(**training)
    assert note.startswith("The model is not compiled: what it was compiled with cannot be read: it needs the ")
    assert remedy in note
    assert note.isprintable()
    assert not model.compiled


def my_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred))


class MyLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_true - y_pred)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".json"])
@pytest.mark.parametrize(("loss", "name"), [(my_loss, "my_loss"), (MyLoss(), "MyLoss")])
def test_a_file_of_keras_3_is_read_without_what_keras_cannot_read(loss, name, suffix, tmp_path):
    model = _model()
    model.compile("adam", loss)
    path, weights = tmp_path / f"net{suffix}", None
    if suffix == ".json":
        path.write_text(model.to_json())
        model.save_weights(weights := tmp_path / "net.weights.h5")
    else:
        model.save(path)
    got, (note,) = read(path, weights=weights)
    assert_same_function(model, got)
    assert not got.compiled
    assert note.startswith("The model is not compiled: what it was compiled with cannot be read: ")
    known = {name: type(loss) if name == "MyLoss" else loss}
    got, notes = read(path, weights=weights, custom_objects=known)
    assert (got.compiled, notes) == (True, ())
    assert isinstance(got.optimizer, keras.optimizers.Adam)
