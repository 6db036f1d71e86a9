"""Classes of the user's, in Python and on the command line."""

import sys

import keras
import pytest
from keras import layers

from kerasbn import ModelFileError, OptionError, load
from kerasbn.cli import main
from kerasbn.loading.custom import imported
from tests.helpers import assert_same_function, randomize

pytestmark = pytest.mark.tensorflow

MODULE = """
import keras

class Double(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def triple(x):
    return 3 * x

EVERYTHING = {"Double": Double, "triple": triple}
"""
REGISTERING = MODULE.replace("class Double", "@keras.saving.register_keras_serializable('mine')\nclass Double")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two modules, of which one registers its class, and a model of each."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("plain_layers", MODULE), ("registering_layers", REGISTERING)):
        (tmp_path / f"{name}.py").write_text(content)
        found = imported((), [f"{name}:EVERYTHING"])
        chain = [layers.Dense(3, activation="relu"), found["Double"](name="twice"), layers.Dense(3)]
        if name == "plain_layers":
            chain.append(layers.Activation(found["triple"], name="thrice"))
        randomize(keras.Sequential([keras.Input((4,)), *chain])).save(tmp_path / f"{name}.keras")
        del sys.modules[name]
    keras.saving.get_custom_objects().pop("mine>Double")
    yield tmp_path
    for name in ("plain_layers", "registering_layers"):
        sys.modules.pop(name, None)
    keras.saving.get_custom_objects().pop("mine>Double", None)


def test_in_python(folder):
    found = imported((), ["plain_layers:EVERYTHING"])
    model = load("plain_layers.keras", custom_objects=found)
    assert type(model.get_layer("twice")) is found["Double"]
    assert_same_function(keras.models.load_model("plain_layers.keras", custom_objects=found), model, tolerance=0)
    with pytest.raises(ModelFileError, match=r"layer 'twice' needs the class 'Double'.*--custom-objects MODULE:Double"):
        load("plain_layers.keras")
    with pytest.raises(ModelFileError, match=r"'triple'.*--custom-objects MODULE:triple"):
        load("plain_layers.keras", custom_objects={"Double": found["Double"]})


ONE_BY_ONE = "--custom-objects plain_layers:Double --custom-objects plain_layers:triple"


@pytest.mark.parametrize(
    "options",
    [
        *(f"plain_layers.keras {ONE_BY_ONE}", "plain_layers.keras --custom-objects plain_layers:EVERYTHING"),
        "registering_layers.keras --import registering_layers",
    ],
)
def test_on_the_command_line(options, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kerasbn-rewrite", *options.split(), "--dry-run"])
    assert main._status() == 0
    assert "dense" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("plain_layers.keras", "--custom-objects MODULE:Double"),
        ("registering_layers.keras", "--import"),
        ("plain_layers.keras --import missing_layers", "'missing_layers' cannot be imported"),
        ("plain_layers.keras --custom-objects plain_layers", "MODULE:NAME"),
        ("plain_layers.keras --custom-objects plain_layers:Missing", "no 'Missing'"),
        ("plain_layers.keras --weights registering_layers.keras", "holds its weights itself"),
    ],
)
def test_what_is_missing_is_named(options, message, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kerasbn-rewrite", *options.split(), "--dry-run"])
    assert main._status() == main.BAD_INPUT
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("code", "cause"), [("1 / 0", "division by zero"), ("raise SystemExit", "calls sys.exit")])
def test_a_module_that_fails(code, cause, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_layers.py").write_text(code)
    with pytest.raises(OptionError, match=cause):
        imported(["failing_layers"], ())
