"""Optimizers and learning rates, carried over to the rewritten model."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras.optimizers import schedules

import kerasbn
from kerasbn.compilation.memory import leaves
from tests.helpers import sequential


def _trained(optimizer):
    model = sequential(L.Dense(8, activation="tanh", name="a"))
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    generator = np.random.default_rng(3)
    model.fit(generator.normal(size=(96, 12)), generator.integers(0, 3, 96), verbose=0)
    return model


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.01),
    "Adadelta": lambda: keras.optimizers.Adadelta(0.01),
    "Adamax": lambda: keras.optimizers.Adamax(0.01),
    "Nadam": lambda: keras.optimizers.Nadam(0.01),
    "Ftrl": lambda: keras.optimizers.Ftrl(0.01),
    "Lion": lambda: keras.optimizers.Lion(0.01),
    "Lamb": lambda: keras.optimizers.Lamb(0.01),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_class_configuration_and_scale(optimizer):
    source = _trained(OPTIMIZERS[optimizer]())
    result = kerasbn.rewrite(source, learning_rate_scale=5.0)
    assert type(result.optimizer) is type(source.optimizer)
    theirs, ours = source.optimizer.get_config(), result.optimizer.get_config()
    inner = "inner_optimizer"
    for config in (theirs, ours):
        config.update(config.pop(inner, {"config": {}})["config"] if inner in config else {})
    assert ours.pop("learning_rate") == pytest.approx(5 * theirs.pop("learning_rate"))
    assert ours == theirs
    assert float(source.optimizer.learning_rate) == pytest.approx(0.01)


SLOTS = {
    "momentum": ["momentums"],
    "Adam": ["_momentums", "_velocities", "_velocity_hats"],
    "Lion": ["_momentums"],
    "accumulation": ["_momentums", "_velocities", "_accumulated_gradients"],
}


@pytest.mark.parametrize("optimizer", SLOTS)
def test_slots_of_the_weights_that_live_on_are_kept(optimizer):
    source = _trained(OPTIMIZERS[optimizer]())
    result = kerasbn.rewrite(source, position="after")
    kept = {"a/kernel": 0, "a/bias": 1, "head/kernel": 2, "head/bias": 3}
    order = ["/".join(v.path.split("/")[-2:]) for v in result.trainable_variables]
    for slots in SLOTS[optimizer]:
        for path, index in kept.items():
            old = getattr(source.optimizer, slots)[index]
            new = getattr(result.optimizer, slots)[order.index(path)]
            np.testing.assert_array_equal(new, old)
            assert np.any(np.asarray(old)), "a slot of zeros tells nothing"
        fresh = getattr(result.optimizer, slots)[order.index("a_bn/gamma")]
        assert not np.any(np.asarray(fresh))
    assert int(result.optimizer.iterations) == int(source.optimizer.iterations) > 0


def test_the_plan_says_what_starts_afresh():
    afresh, trained = kerasbn.plan(_trained("adam")).notes
    assert afresh.endswith("it starts afresh on those of a_bn.")
    assert trained.startswith("The model is trained.")


class Sawtooth(schedules.LearningRateSchedule):
    """A schedule that Keras does not know."""

    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32") % 3)

    def get_config(self):
        return {}


SCHEDULES = {
    "exponential": lambda: schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True),
    "inverse time": lambda: schedules.InverseTimeDecay(0.1, 10, 0.5),
    "polynomial": lambda: schedules.PolynomialDecay(0.1, 10, end_learning_rate=0.01, power=2.0),
    "piecewise": lambda: schedules.PiecewiseConstantDecay([5, 20], [0.1, 0.01, 0.001]),
    "cosine": lambda: schedules.CosineDecay(0.01, 20, alpha=0.1, warmup_target=0.1, warmup_steps=5),
    "cosine restarts": lambda: schedules.CosineDecayRestarts(0.1, 10, alpha=0.1),
    "the user's own": Sawtooth,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_scaled(schedule, tmp_path):
    source = _trained(keras.optimizers.SGD(SCHEDULES[schedule]()))
    result = kerasbn.rewrite(source, learning_rate_scale=5.0)
    ours, theirs = result.optimizer._learning_rate, source.optimizer._learning_rate
    steps = np.arange(0, 40, 3)
    np.testing.assert_allclose([float(ours(s)) for s in steps], [5 * float(theirs(s)) for s in steps], rtol=1e-5)
    result.save(tmp_path / "scaled.keras")
    with keras.saving.custom_object_scope({"Sawtooth": Sawtooth}):
        loaded = keras.models.load_model(tmp_path / "scaled.keras").optimizer._learning_rate
    np.testing.assert_allclose([float(loaded(s)) for s in steps], [float(ours(s)) for s in steps], rtol=1e-6)


@pytest.mark.parametrize("speedup", [2.5, 6.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_decay_is_sped_up(schedule, speedup, tmp_path):
    source = _trained(keras.optimizers.SGD(SCHEDULES[schedule]()))
    result = kerasbn.rewrite(source, decay_speedup=speedup, learning_rate_scale=2.0)
    ours, theirs = result.optimizer._learning_rate, source.optimizer._learning_rate
    if schedule == "cosine":  # the warmup of 5 steps keeps its length
        pairs = [(2, 2), (5 + 10 / speedup, 15)]
    else:
        pairs = [(step, step * speedup) for step in range(0, 30, 2)]
    for step, original in pairs:
        np.testing.assert_allclose(ours(np.float32(step)), 2 * theirs(np.float32(original)), rtol=1e-4)
    result.save(tmp_path / "faster.keras")
    with keras.saving.custom_object_scope({"Sawtooth": Sawtooth}):
        loaded = keras.models.load_model(tmp_path / "faster.keras").optimizer._learning_rate
    np.testing.assert_allclose([float(loaded(s)) for s in range(9)], [float(ours(s)) for s in range(9)], rtol=1e-6)


def test_a_learning_rate_without_a_schedule_does_not_decay_faster():
    source = _trained(keras.optimizers.SGD(0.1))
    plan = kerasbn.plan(source, decay_speedup=6.0)
    assert any("no schedule" in note for note in plan.notes)
    assert float(plan.apply().optimizer.learning_rate) == pytest.approx(0.1)


def test_weight_decay_of_the_optimizer_is_scaled():
    source = _trained(keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.01, weight_decay=0.1)))
    result = kerasbn.rewrite(source, weight_decay_scale=0.2)
    assert result.optimizer.inner_optimizer.weight_decay == pytest.approx(0.02)
    assert source.optimizer.inner_optimizer.weight_decay == pytest.approx(0.1)


needs_several = pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras 3.14 has none")


@needs_several
def test_several_optimizers_stay_several():
    shared = keras.optimizers.SGD(0.01, momentum=0.9)
    chosen = keras.optimizers.OptimizerMap(shared, {".*head/bias": keras.optimizers.Adam(0.1), ".*a/bias": shared})
    source = _trained(keras.optimizers.MultiOptimizer(chosen))
    result = kerasbn.rewrite(source, position="after", learning_rate_scale=5.0)
    sgd, adam = sorted(result.optimizer.optimizers, key=lambda each: -len(each.variables))
    assert isinstance(sgd, keras.optimizers.SGD)
    assert isinstance(adam, keras.optimizers.Adam)
    assert float(sgd.learning_rate) == pytest.approx(0.05)
    assert float(adam.learning_rate) == pytest.approx(0.5)
    assert float(shared.learning_rate) == pytest.approx(0.01)
    np.testing.assert_array_equal(sgd.momentums[0], shared.momentums[0])
    assert np.any(shared.momentums[0]), "a slot of zeros tells nothing"
    assert int(result.optimizer.iterations) == int(source.optimizer.iterations)
    result.fit(np.zeros((8, 12)), np.zeros(8), verbose=0)


@needs_several
def test_several_optimizers_chosen_by_a_function_are_refused():
    sgd = keras.optimizers.SGD(0.01)
    source = _trained(keras.optimizers.MultiOptimizer(lambda variable: sgd))
    with pytest.raises(kerasbn.UnsupportedModelError, match="OptimizerMap"):
        kerasbn.rewrite(source)


def test_without_a_scale_the_learning_rate_is_as_it_was():
    source = _trained(keras.optimizers.SGD(Sawtooth()))
    assert kerasbn.rewrite(source).optimizer._learning_rate is source.optimizer._learning_rate


class Constant(schedules.LearningRateSchedule):
    """A schedule that cannot be saved."""

    def __call__(self, step):
        return 0.1 + 0.0 * keras.ops.cast(step, "float32")


class Function:
    """A function of no arguments that cannot be saved."""

    def __call__(self):
        return 0.1


def _several(optimizer):
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer, {".*head/bias": optimizer}))


WRAPPERS = {
    "plain": lambda optimizer: optimizer,
    "loss scale": keras.optimizers.LossScaleOptimizer,
    "several": pytest.param(_several, marks=needs_several),
}


@pytest.mark.parametrize("rate", [Constant, Function])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_learning_rate_need_not_be_one_that_can_be_saved(wrap, rate):
    source = _trained(wrap(keras.optimizers.SGD(rate(), momentum=0.9)))
    options = {} if wrap is _several else {"rates": [("head", 0.5)]}
    for changes, times in [({}, 1.0), ({"learning_rate_scale": 5.0, "decay_speedup": 2.0, **options}, 5.0)]:
        result = kerasbn.rewrite(source, **changes)
        (optimizer,) = leaves(result.optimizer)
        assert isinstance(optimizer, keras.optimizers.SGD)
        assert optimizer.momentum == 0.9
        assert float(optimizer.learning_rate) == pytest.approx(0.1 * times)
        result.fit(np.zeros((8, 12)), np.zeros(8), verbose=0)
    (own,) = leaves(source.optimizer)
    assert isinstance(own._learning_rate, rate)


def test_an_optimizer_that_tells_no_configuration_is_named():
    class Mute(keras.optimizers.SGD):
        def get_config(self):
            raise NotImplementedError("ask someone else")

    with pytest.raises(kerasbn.UnsupportedModelError, match=r"Mute.*ask someone else.*Give the class a get_config"):
        kerasbn.rewrite(_trained(Mute(0.01)))


@pytest.mark.parametrize(
    "wrap", [lambda plain: plain, keras.optimizers.LossScaleOptimizer], ids=["plain", "loss scale"]
)
@pytest.mark.parametrize("norm", [None, L.BatchNormalization()], ids=["kerasbn", "keras"])
def test_statistics_take_the_batches_that_gradients_are_accumulated_over(norm, wrap):
    source = _trained(wrap(keras.optimizers.Adam(0.01, gradient_accumulation_steps=4)))
    plan = kerasbn.plan(source, norm=norm, normalize_inputs=True)
    inserted = [layer for layer in plan.apply().layers if isinstance(layer, L.BatchNormalization)]
    assert len(inserted) == 2
    assert [getattr(layer, "accumulate", 1) for layer in inserted] == [4, 4] if norm is None else [1, 1]
    assert any("accumulated over 4 batches" in note for note in plan.notes) is (norm is None)
