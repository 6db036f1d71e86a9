"""What is validated and saved has averaged weights and measured statistics; what is trained knows nothing of it."""

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasbn
from kerasbn.callbacks import Calibrate
from tests.helpers import randomize

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(2, 3, (64, 6)).astype("float32")
Y = GENERATOR.integers(0, 3, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIMIZERS = {
    "plain": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "averaging": lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.9),
    "averaging, overwriting": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "scaled losses": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, use_ema=True)),
}


def _model(optimizer="averaging"):
    keras.utils.set_random_seed(0)
    norms = L.BatchNormalization(), kerasbn.layers.BatchNormalization(renorm=True, accumulate=3)
    chain = [layer for norm in norms for layer in (L.Dense(8), norm, L.ReLU(), L.Dropout(0.2))]
    model = keras.Sequential([keras.Input((6,)), *chain, L.Dense(3)])
    model.compile(OPTIMIZERS[optimizer](), LOSS, metrics=["accuracy"])
    return model


def _fit(model, callbacks, epochs=3, **options):
    keras.utils.set_random_seed(1)
    options = {"validation_data": (X, Y), "batch_size": 16, **options}
    return model.fit(X, Y, epochs=epochs, verbose=0, callbacks=callbacks, **options)


def _values(variables):
    return [variable.numpy().tobytes() for variable in variables]


def _expected(model):
    """The model as it is to be validated: a copy with the averages of the weights, and statistics of the data."""
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    if optimizer.use_ema:
        for weight, average in zip(copy.trainable_variables, optimizer._model_variables_moving_average, strict=True):
            weight.assign(average)
    kerasbn.calibrate(copy, X, 2)
    copy.compile(loss=LOSS, metrics=["accuracy"])
    return copy


class Looks(keras.callbacks.Callback):
    """Keeps what the model is whenever an epoch has ended."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(_values(self.model.weights))


class Trained(keras.callbacks.Callback):
    """Keeps what the model is to be validated as, worked out from what it is after the last batch of an epoch."""

    def __init__(self, last):
        super().__init__()
        self.last, self.expected = last, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.last:
            self.expected.append(_expected(self.model))


@pytest.mark.parametrize(("optimizer", "validated"), [*((each, True) for each in OPTIMIZERS), ("averaging", False)])
def test_training_goes_on_as_without_it(optimizer, validated):
    options = {} if validated else {"validation_data": None}
    plain, model = _model(optimizer), _model(optimizer)
    history = _fit(plain, [], **options).history
    got = _fit(model, [Calibrate(X, 2)], **options).history
    assert got["loss"] == history["loss"]
    assert _values(model.weights) == _values(plain.weights)
    assert _values(model.optimizer.variables) == _values(plain.optimizer.variables)


@pytest.mark.tensorflow  # where variables have their values after each batch
@pytest.mark.parametrize(
    ("optimizer", "first", "validated"),
    [*((each, False, True) for each in OPTIMIZERS), ("averaging", True, True), ("averaging", False, False)],
)
def test_what_is_validated_and_saved(optimizer, first, validated, tmp_path):
    model, trained, looks = _model(optimizer), Trained(3), Looks()
    saves = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    others = [saves, looks, trained]
    callbacks = [Calibrate(X, 2), *others] if first else [*others, Calibrate(X, 2)]
    history = _fit(model, callbacks, **({} if validated else {"validation_data": None})).history
    for epoch, expected in enumerate(trained.expected):
        assert looks.seen[epoch] == _values(expected.weights)
        saved = keras.models.load_model(tmp_path / f"{epoch + 1}.keras")
        assert _values(saved.weights) == _values(expected.weights)
        if validated:
            assert history["val_accuracy"][epoch] == expected.evaluate(X, Y, verbose=0)[1]


def test_averages_are_left_out_if_asked_to(tmp_path):
    model, looks = _model(), Looks()
    _fit(model, [looks, Calibrate(X, 2, ema=False)], epochs=1)
    plain, own = _model(), Looks()
    _fit(plain, [own], epochs=1)
    names = [weight.name for weight in model.weights]
    same = {name for name, one, other in zip(names, looks.seen[0], own.seen[0], strict=True) if one == other}
    assert same == {"kernel", "bias", "gamma", "beta"}


def test_the_best_weights_are_those_that_were_validated():
    for first in (True, False):
        model = _model()
        stops = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
        callbacks = [Calibrate(X, 2), stops] if first else [stops, Calibrate(X, 2)]
        history = _fit(model, callbacks, epochs=8).history
        assert len(history["val_loss"]) < 8 or min(history["val_loss"]) == history["val_loss"][-1]
        assert model.evaluate(X, Y, verbose=0)[0] == pytest.approx(min(history["val_loss"]), rel=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_training_that_was_cut_off_is_taken_up_again(first, tmp_path):
    class CutOff(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def callbacks(*more):
        backs_up = keras.callbacks.BackupAndRestore(str(tmp_path / f"{first}"), double_checkpoint=False)
        pair = [Calibrate(X, 2), backs_up]
        return [*(pair if first else pair[::-1]), *more]

    options = {"shuffle": False, "batch_size": 64}
    plain, model = (_without_dropout() for _ in range(2))
    _fit(plain, [], epochs=4, **options)
    with pytest.raises(KeyboardInterrupt):
        _fit(model, callbacks(CutOff()), epochs=4, **options)
    again = _without_dropout()
    _fit(again, callbacks(), epochs=4, **options)
    for got, expected in zip(again.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def _without_dropout():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(8), L.BatchNormalization(), L.ReLU(), L.Dense(3)])
    model.compile(OPTIMIZERS["averaging"](), LOSS)
    return model


def test_a_fit_that_was_interrupted_while_it_validated_loses_nothing():
    class Interrupts(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    model, calibrates = _model(), Calibrate(X, 2)
    plain = _model()
    _fit(plain, [], epochs=1)
    with pytest.raises(KeyboardInterrupt):
        _fit(model, [calibrates, Interrupts()], epochs=1)
    calibrates.set_model(model)
    statistics = [index for index, weight in enumerate(model.weights) if weight.name.startswith("moving")]
    got, expected = _values(model.weights), _values(plain.weights)
    assert [got[index] for index in statistics] == [expected[index] for index in statistics]


def test_weights_that_were_loaded_since_an_interrupt_are_trained_on():
    class Interrupts(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    model, calibrates = _model("plain"), Calibrate(X, 2)
    with pytest.raises(KeyboardInterrupt):
        _fit(model, [calibrates, Interrupts()], epochs=1)
    loaded = randomize(_model("plain")).get_weights()
    model.set_weights(loaded)
    calibrates.set_model(model)
    assert all(map(np.array_equal, model.get_weights(), loaded))


def test_evaluate_alone():
    model = randomize(_model("plain"))
    before = _values(model.weights)
    expected = _expected(model).evaluate(X, Y, verbose=0)
    got = model.evaluate(X, Y, verbose=0, callbacks=[Calibrate(X, 2)])
    assert got == expected
    assert _values(model.weights) == before


def test_evaluate_again_once_it_was_trained():
    model, calibrates = _model("plain"), Calibrate(X, 2)
    model.evaluate(X, Y, verbose=0, callbacks=[calibrates])
    _fit(model, [], epochs=1)
    expected = _expected(model).evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y, verbose=0, callbacks=[calibrates]) == expected


def test_the_batches_of_a_generator_are_kept():
    data = (X[start : start + 32] for start in (0, 32))
    one, other = _model(), _model()
    assert _fit(one, [Calibrate(data, 2)]).history == _fit(other, [Calibrate(X, 2)]).history


def test_frozen_layers_keep_their_statistics():
    model, looks = _model(), Looks()
    norm = model.layers[1]
    norm.trainable = False
    before = norm.moving_mean.numpy().tobytes()
    _fit(model, [looks, Calibrate(X, 2)], epochs=1)
    assert before in looks.seen[0]
    assert norm.moving_mean.numpy().tobytes() == before


# What is refused, and what the message says.
REFUSED = {
    "no batch": (lambda: Calibrate(X, 0), "positive number of batches"),
    "averages of another kind": (lambda: Calibrate(X, ema=0.9), "True or False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_are_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(kerasbn.OptionError, match=message):
        make()


def test_data_that_does_not_fit_leaves_the_model_as_it_is():
    model, plain = _model(), _model()
    _fit(plain, [], epochs=1)
    with pytest.raises(kerasbn.OptionError, match="does not fit"):
        _fit(model, [Calibrate(X[:, :2])], epochs=1)
    statistics = [index for index, weight in enumerate(model.weights) if weight.name.startswith("moving")]
    got, expected = _values(model.weights), _values(plain.weights)
    assert [got[index] for index in statistics] == [expected[index] for index in statistics]
