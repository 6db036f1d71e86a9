"""Which Dropout goes, and why the rest stays."""

import keras
import pytest
from keras import layers as L

import kerasbn
from kerasbn import Reason
from tests.helpers import assert_same_function, randomize

GONE = "gone"


def _chain(*layers, shape=(8, 8, 4)):
    """Layers ahead of a normalization, with a head behind it."""
    return keras.Sequential(
        [keras.Input(shape, name="in"), *layers, L.BatchNormalization(name="n"), L.Flatten(), L.Dense(2, name="head")]
    )


def _dense(activation="relu"):
    return L.Dense(4, activation=activation, name="a")


def _behind_the_last_normalization():
    return keras.Sequential(
        [keras.Input((4,), name="in"), L.Dense(4), L.BatchNormalization(name="n"), L.Dropout(0.5, name="d"), L.Dense(2)]
    )


def _monte_carlo():
    inputs = keras.Input((4,), name="in")
    x = L.BatchNormalization(name="n")(L.Dropout(0.5, name="d")(_dense()(inputs), training=True))
    return keras.Model(inputs, L.Dense(2, name="head")(x))


def _attention():
    inputs = keras.Input((5, 4), name="in")
    query, key, value = (L.Dense(4, name=name)(inputs) for name in ("query", "key", "value"))
    weights = L.Softmax(name="weights")(keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1))))
    x = keras.ops.matmul(L.Dropout(0.5, name="d")(weights), value)
    return keras.Model(inputs, L.Dense(2, name="head")(L.BatchNormalization(name="n")(x)))


def _stochastic_depth():
    inputs = keras.Input((4,), name="in")
    branch = L.Dropout(0.2, noise_shape=(None, 1), name="d")(_dense()(inputs))
    return keras.Model(inputs, L.Dense(2, name="head")(L.BatchNormalization(name="n")(L.Add()([inputs, branch]))))


def _text():
    inputs = keras.Input((5,), dtype="int32", name="in")
    x = L.LSTM(4, name="rnn")(L.Dropout(0.5, name="d")(L.Embedding(9, 4)(inputs)))
    return keras.Model(inputs, L.Dense(2, name="head")(L.BatchNormalization(name="n")(L.Dense(4)(x))))


def _transformer():
    """Its trunk is normalized example by example, its head by the batch."""
    x = inputs = keras.Input((5, 4), name="in")
    for number in range(2):
        y = L.Dense(4)(L.Dense(8, activation="gelu")(L.LayerNormalization()(x)))
        x = L.Add()([x, L.Dropout(0.5, name="d" if number == 0 else "e")(y)])
    x = L.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, L.Dense(2, name="head")(L.BatchNormalization(name="n")(L.Dense(4)(x))))


def _residual():
    """A sum that goes to the output besides, past no other normalization."""
    inputs = keras.Input((4,), name="in")
    x = L.Dropout(0.5, name="d")(_dense()(inputs))
    y = L.ReLU()(L.BatchNormalization(name="n")(L.Dense(4)(x)))
    return keras.Model(inputs, L.Dense(2, name="head")(L.Add()([x, y])))


def _output():
    inputs = keras.Input((4,), name="in")
    x = L.Dropout(0.5, name="d")(_dense()(inputs))
    return keras.Model(inputs, [x, L.Dense(2, name="head")(L.BatchNormalization(name="n")(x))])


# The model, and what becomes of "d" with dropout="redundant" and with "all".
CASES = {
    "dropout": (lambda: _chain(_dense(), L.Dropout(0.5, name="d")), GONE, GONE),
    "gaussian": (lambda: _chain(_dense(), L.GaussianDropout(0.5, name="d")), GONE, GONE),
    "spatial": (lambda: _chain(_dense(), L.SpatialDropout2D(0.5, name="d")), GONE, GONE),
    "every step": (lambda: _chain(_dense(), L.TimeDistributed(L.Dropout(0.5), name="d")), GONE, GONE),
    "noise": (lambda: _chain(_dense(), L.GaussianNoise(0.5, name="d")), GONE, GONE),
    "noise on the inputs": (lambda: _chain(L.GaussianNoise(0.5, name="d"), _dense()), Reason.AUGMENTATION, GONE),
    "dropout on the inputs": (lambda: _chain(L.Dropout(0.5, name="d"), _dense()), GONE, GONE),
    "alpha": (
        lambda: _chain(_dense("selu"), L.AlphaDropout(0.5, name="d")),
        Reason.SELF_NORMALIZING,
        Reason.SELF_NORMALIZING,
    ),
    "behind the last normalization": (_behind_the_last_normalization, Reason.NO_NORMALIZATION_BEHIND, GONE),
    "Monte Carlo": (_monte_carlo, Reason.MONTE_CARLO, Reason.MONTE_CARLO),
    "attention": (_attention, Reason.ATTENTION, Reason.ATTENTION),
    "stochastic depth": (_stochastic_depth, Reason.STOCHASTIC_DEPTH, GONE),
    "text": (_text, Reason.NO_NORMALIZATION_BEHIND, GONE),
    "transformer": (_transformer, Reason.NO_NORMALIZATION_BEHIND, GONE),
    "residual": (_residual, GONE, GONE),
    "an output": (_output, Reason.OUTPUT, Reason.OUTPUT),
}


@pytest.mark.parametrize("case", CASES)
def test_layers(case):
    make, redundant, everything = CASES[case]
    source = randomize(make())
    for option, expected in (("redundant", redundant), ("all", everything), ("none", Reason.KEPT)):
        plan = kerasbn.plan(source, position="none", dropout=option)
        outcome = [GONE for edit in plan.edits if edit.site == "d#0" and edit.kind == "remove"]
        outcome += [skip.reason for skip in plan.skips if skip.site == "d#0"]
        assert outcome == [expected], option
        result = plan.apply()
        assert any(layer.name == "d" for layer in result.layers) == (expected is not GONE)
        assert_same_function(source, result)


@pytest.mark.parametrize("option", ["redundant", "all"])
def test_a_model_called_as_in_training(option):
    inner = keras.Sequential([keras.Input((4,)), _dense(), L.Dropout(0.5, name="d")], name="inner")
    inputs = keras.Input((4,))
    x = L.BatchNormalization()(inner(inputs, training=True))
    plan = kerasbn.plan(keras.Model(inputs, L.Dense(2)(x)), position="none", dropout=option)
    assert [skip.reason for skip in plan.skips if skip.site == "inner/d#0"] == [Reason.MONTE_CARLO]


RATES = {"dropout": 0.3, "recurrent_dropout": 0.2}
RECURRENT = {
    "LSTM": lambda **rates: L.LSTM(4, return_sequences=True, name="a", **rates),
    "GRU": lambda **rates: L.GRU(4, return_sequences=True, name="a", **rates),
    "SimpleRNN": lambda **rates: L.SimpleRNN(4, return_sequences=True, name="a", **rates),
    "both ways": lambda **rates: L.Bidirectional(L.LSTM(4, return_sequences=True, **rates), name="a"),
    "ConvLSTM": lambda **rates: L.ConvLSTM1D(4, 3, return_sequences=True, name="a", **rates),
}


def _rates(model):
    layer = model.get_layer("a")
    both = [layer.forward_layer, layer.backward_layer] if isinstance(layer, L.Bidirectional) else [layer]
    assert len({(each.dropout, each.recurrent_dropout) for each in both}) == 1
    return both[0].dropout, both[0].recurrent_dropout


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_arguments_of_recurrent_layers(kind, copy):
    shape = (5, 6, 3) if kind == "ConvLSTM" else (5, 6)
    source = randomize(_chain(RECURRENT[kind](**RATES), shape=shape))
    for option, expected in (("redundant", (0.3, 0.2)), ("all", (0.0, 0.0)), ("none", (0.3, 0.2))):
        result = kerasbn.rewrite(source, position="none", dropout=option, copy=copy)
        assert _rates(result) == expected
        assert _rates(source) == (0.3, 0.2)
        assert_same_function(source, result)


REASONS = {
    "recurrent dropout alone": ({"recurrent_dropout": 0.2}, {}, Reason.RECURRENT_DROPOUT),
    "asked to keep": (RATES, {"dropout": "none"}, Reason.KEPT),
}


@pytest.mark.parametrize("case", REASONS)
def test_why_recurrent_dropout_stays(case):
    rates, options, reason = REASONS[case]
    plan = kerasbn.plan(_chain(L.LSTM(4, name="a", **rates), shape=(5, 6)), **options)
    assert reason in {skip.reason for skip in plan.skips if skip.site == "a#0"}


def test_a_recurrent_layer_in_a_model_called_as_in_training():
    inner = keras.Sequential([keras.Input((5, 6)), L.LSTM(4, dropout=0.5, name="a")], name="inner")
    inputs = keras.Input((5, 6))
    source = keras.Model(inputs, L.Dense(2)(L.BatchNormalization()(inner(inputs, training=True))))
    plan = kerasbn.plan(source, position="none")
    assert Reason.MONTE_CARLO in {skip.reason for skip in plan.skips if skip.site == "inner/a#0"}
