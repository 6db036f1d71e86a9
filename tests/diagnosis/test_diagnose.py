"""Each planted fault is named at its layer, and at no other; where a program can apply the remedy, it goes away."""

import dataclasses
import json
import types
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Kind, _keras
from tests.helpers import snapshot
from tests.pages.reading import Reading

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(128, 8, 8, 3)).astype("float32")


def _calibrated(*layers, shape=(8, 8, 3)):
    """A network of which nothing is to be said."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *layers])
    return kerasbn.calibrate(model, X.reshape(-1, *shape))


def _conv(name, **options):
    return L.Conv2D(8, 3, padding="same", **{"use_bias": False, "name": name, **options})


def _bn(name, **options):
    return L.BatchNormalization(name=name, **{"momentum": 0.9, **options})


def _end(name="head"):
    return [L.GlobalAveragePooling2D(), L.Dense(4, name=name)]


def _net(**options):
    layers = [_conv("a"), _bn("a_bn"), L.ReLU(), _conv("b"), _bn("b_bn", **options), L.ReLU(), _conv("c"), _bn("c_bn")]
    return _calibrated(*layers, L.ReLU(), *_end())


def _set(model, layer, **values):
    for name, value in values.items():
        getattr(model.get_layer(layer), name).assign(np.broadcast_to(value, (8,)))
    return model


def _compiled(model, optimizer, steps):
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(steps)
    return model


def _fixed_training():
    inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(_bn("a_bn")(_conv("a")(inputs)))
    x = _bn("b_bn")(_conv("b")(x), training=True)
    model = keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    return kerasbn.calibrate(model, X)


def _mixed(frozen):
    model = _net()
    for name in frozen:
        model.get_layer(name).trainable = False
    return model


def _averaged():
    model = _compiled(_net(), keras.optimizers.SGD(use_ema=True), 1)
    for weight in model.trainable_variables:
        weight.assign(weight * 1.01)
    return kerasbn.calibrate(model, X)


def _dropped(rate=0.5):
    layers = [_conv("a"), _bn("a_bn"), L.ReLU(), L.Dropout(rate), _conv("b"), _bn("b_bn"), L.ReLU()]
    return _calibrated(*layers, _conv("c"), _bn("c_bn"), *_end())


def _dying():
    layers = [_conv("a", use_bias=True, activation="relu"), _bn("a_bn"), _conv("b"), _bn("b_bn"), L.ReLU()]
    model = _calibrated(*layers, *_end())
    model.get_layer("a").bias.assign([-100.0] * 4 + [0.0] * 4)
    return kerasbn.calibrate(model, X)


def _exploding():
    model = _net()
    model.get_layer("b").kernel.assign(model.get_layer("b").kernel * 1e6)
    return kerasbn.calibrate(model, X)


def _double():
    layers = [_conv("a"), _bn("a_bn"), L.ReLU(), _conv("b"), L.LayerNormalization(name="b_ln"), _bn("b_bn"), L.ReLU()]
    return _calibrated(*layers, *_end())


def _half(dtype):
    layers = [_conv("a"), _bn("a_bn"), L.ReLU(), _conv("b"), _bn("b_bn", dtype=dtype), L.ReLU()]
    return _calibrated(*layers, *_end())


def _decaying(**excluded):
    optimizer = keras.optimizers.AdamW()
    if excluded:
        optimizer.exclude_from_weight_decay(**excluded)
    return _compiled(_net(scale=True), optimizer, 10_000)


def _averages_taken(model):
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return kerasbn.calibrate(model, X)


def _in_batches(size):
    return [X[start : start + size] for start in range(0, 8 * size, size)]


CALIBRATE = lambda model: kerasbn.calibrate(model, X)  # noqa: E731
REWRITE = lambda model, **options: kerasbn.rewrite(model, position="none", dropout="none", **options)  # noqa: E731
FREEZE = lambda model: kerasbn.freeze(model, "b_bn") and model  # noqa: E731


@dataclasses.dataclass
class Fault:
    """A fault, where it is to be found, and what is to mend it. A `size` is that of batches."""

    make: Callable[[], keras.Model]
    kind: Kind
    sites: tuple[str, ...] = ("b_bn",)
    mended: Callable[[keras.Model], keras.Model] | None = None
    size: int | None = None


FAULTS = {
    "mean": Fault(lambda: _set(_net(), "b_bn", moving_mean=5.0), Kind.STATISTICS, mended=CALIBRATE),
    "variance": Fault(lambda: _set(_net(), "b_bn", moving_variance=100.0), Kind.STATISTICS, mended=CALIBRATE),
    "modes": Fault(lambda: _set(_net(), "c_bn", moving_mean=9.0), Kind.MODES, ("sequential",), CALIBRATE),
    "momentum": Fault(
        lambda: _set(_compiled(_net(momentum=0.99), keras.optimizers.SGD(), 50), "b_bn", moving_variance=9.0),
        Kind.MOMENTUM,
        mended=CALIBRATE,
    ),
    "batch": Fault(
        _net, Kind.TOO_FEW, ("a_bn", "b_bn", "c_bn"), lambda model: kerasbn.freeze(model, what="statistics").model, 4
    ),
    "training=True": Fault(_fixed_training, Kind.FIXED_TRAINING, mended=FREEZE),
    "dead": Fault(_dying, Kind.DEAD, ("a_bn",)),
    "gamma zero": Fault(lambda: _set(_net(), "b_bn", gamma=[0.0] * 4 + [1.0] * 4), Kind.DEAD),
    "exploded": Fault(_exploding, Kind.EXPLODED),
    "not finite": Fault(lambda: _set(_net(), "b_bn", moving_variance=np.nan), Kind.EXPLODED, mended=CALIBRATE),
    "gamma NaN": Fault(lambda: _set(_net(), "c_bn", gamma=np.nan), Kind.EXPLODED, ("c_bn",)),
    "dropout": Fault(
        _dropped,
        Kind.DROPOUT,
        mended=lambda model: kerasbn.calibrate(kerasbn.rewrite(model, position="none"), X),
    ),
    "trains behind frozen": Fault(
        lambda: _mixed(["a", "a_bn", "b"]), Kind.MIXED, mended=lambda model: kerasbn.freeze(model, "b_bn").model
    ),
    "frozen behind what trains": Fault(
        lambda: _mixed(["b_bn"]), Kind.MIXED, mended=lambda model: kerasbn.freeze(model).model
    ),
    "averages": Fault(_averaged, Kind.AVERAGES, ("sequential",), _averages_taken),
    "double": Fault(_double, Kind.DOUBLE, mended=lambda model: REWRITE(model, rules=[("b_bn", "remove")])),
    "float16": Fault(lambda: _half("float16"), Kind.FLOAT16, mended=lambda model: _half("mixed_float16")),
    "axis": Fault(lambda: _net(axis=1), Kind.AXIS, mended=lambda model: _net(axis=3)),
    "bias": Fault(
        lambda: _calibrated(_conv("a", use_bias=True), _bn("b_bn"), *_end()),
        Kind.BIAS,
        mended=lambda model: _calibrated(_conv("a"), _bn("b_bn"), *_end()),
    ),
    "AdamW": Fault(
        _decaying, Kind.DECAY, ("a_bn", "b_bn", "c_bn"), lambda model: REWRITE(model, decay_exclude=["normalization"])
    ),
    "L2": Fault(lambda: _net(gamma_regularizer="l2"), Kind.DECAY, mended=lambda model: _net()),
}


def _found(model, kind, data=X):
    return tuple(each.site for each in kerasbn.diagnose(model, data).findings if each.kind is kind)


def _data(fault):
    return X if fault.size is None else iter(_in_batches(fault.size))


@pytest.fixture(autouse=True)
def names():
    keras.utils.clear_session(free_memory=False)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults(fault):
    model = fault.make()
    assert _found(model, fault.kind, _data(fault)) == fault.sites
    if fault.mended:
        assert _found(fault.mended(model), fault.kind, _data(fault)) == ()


def test_every_kind_has_a_fault():
    assert {fault.kind for fault in FAULTS.values()} == set(Kind)


def test_nothing_is_said_of_a_sound_network():
    diagnosis = kerasbn.diagnose(_net(), X)
    assert not diagnosis.findings
    assert not diagnosis.notes
    assert "nothing that harms" in str(diagnosis)


@pytest.mark.parametrize("fault", ["dropout", "variance", "averages"])
def test_nothing_is_changed(fault):
    model = FAULTS[fault].make()
    before, seeds = snapshot(model), _seeds()
    kerasbn.diagnose(model, (X, X))
    assert snapshot(model) == before
    assert _seeds() == seeds


def _seeds():
    return [keras.ops.convert_to_numpy(seed).tolist() for seed in _keras.global_seed_variables()]


class _Subclassed(keras.Model):
    def __init__(self, fixed=None):
        super().__init__(name="own")
        self.one, self.bn, self.two = L.Dense(8, name="one"), _bn("bn"), L.Dense(3)
        self.fixed = fixed

    def call(self, inputs, training=None):
        return self.two(self.bn(self.one(inputs), training=self.fixed or training))


def test_subclassed():
    model, x = _Subclassed(), X[:, 0, 0]
    model(x)
    kerasbn.calibrate(model, x)
    assert {(each.site, each.kind) for each in kerasbn.diagnose(model, x).findings} == {("bn", Kind.BIAS)}
    _set(model, "bn", moving_mean=7.0)
    assert Kind.STATISTICS in {each.kind for each in kerasbn.diagnose(model, x).findings}


def test_a_model_that_trains_what_it_holds_and_was_never_called():
    model, x = _Subclassed(), X[:, 0, 0]
    model.two(model.bn(model.one(x)))
    _set(model, "bn", moving_mean=7.0)
    assert _found(model, Kind.STATISTICS, x) == ("bn",)


def test_subclassed_that_is_told_to_train():
    model, x = _Subclassed(fixed=True), X[:, 0, 0]
    model(x)
    assert _found(model, Kind.FIXED_TRAINING, x) == ("bn",)


def test_nested():
    inner = keras.Sequential([keras.Input((8, 8, 3)), _conv("conv"), _bn("bn")], name="inner")
    inputs = keras.Input((8, 8, 3))
    model = kerasbn.calibrate(keras.Model(inputs, L.Dense(2)(L.Flatten()(inner(inputs)))), X)
    inner.get_layer("bn").moving_mean.assign(np.full(8, 4.0))
    assert _found(model, Kind.STATISTICS) == ("inner/bn",)


def test_without_data():
    model = _compiled(_net(momentum=0.99, axis=1), keras.optimizers.AdamW(), 50)
    kinds = {(each.site, each.kind) for each in kerasbn.diagnose(model).findings}
    assert {("b_bn", Kind.AXIS), ("b_bn", Kind.DECAY), ("b_bn", Kind.MOMENTUM)} <= kinds


def test_ghost_batches_are_counted():
    layers = [_conv("a"), kerasbn.layers.BatchNormalization(name="b_bn", virtual_batch_size=4)]
    model = _calibrated(*layers, *_end())
    assert _found(model, Kind.TOO_FEW, iter(_in_batches(8))) == ("b_bn",)


def test_replicas_share_a_batch(monkeypatch):
    model = _net()
    monkeypatch.setattr(
        type(model), "distribute_strategy", types.SimpleNamespace(num_replicas_in_sync=4), raising=False
    )
    assert _found(model, Kind.TOO_FEW, iter(_in_batches(16))) == ("a_bn", "b_bn", "c_bn")


def test_what_is_shown():
    diagnosis = kerasbn.diagnose(FAULTS["variance"].make(), X)
    (finding, *_) = diagnosis.findings
    told = json.loads(json.dumps(diagnosis.to_dict()))
    assert told["findings"][0] == {**dataclasses.asdict(finding), "kind": "statistics"}
    pages = (Reading(html).texts for html in (diagnosis.to_html(), diagnosis._repr_html_()))
    for text in (str(diagnosis), *(" ".join(words for _, words in page) for page in pages)):
        assert "b_bn" in text
        assert Kind.STATISTICS.meaning in " ".join(text.split())


def test_errors():
    with pytest.raises(kerasbn.UnsupportedModelError, match="not built"):
        kerasbn.diagnose(keras.Sequential([L.Dense(2)]))
    with pytest.raises(kerasbn.OptionError, match="does not fit"):
        kerasbn.diagnose(_net(), X[..., :2])


def test_a_model_without_normalization():
    assert not kerasbn.diagnose(keras.Sequential([keras.Input((3,)), L.Dense(2)]), X[:, 0, 0]).findings
