"""What other libraries say, quoted to the point: one line, with the layer's name and the cause."""

import json
import zipfile

import keras
import pytest
from keras import layers

import kerasbn
from kerasbn.errors import quoted


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A model's `.keras` file, a model inside of it."""
    path = tmp_path_factory.mktemp("errors") / "m.keras"
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu", name="a")], name="inner")
    keras.Sequential([keras.Input((6,)), inner, layers.Dense(3, name="y")], name="outer").save(path)
    return path


# What a layer's config has that it should not, and what is said of it.
CONFIGS = {
    "activation": ({"activation": "swoosh"}, "Dense 'a': it needs the activation function 'swoosh'"),
    "units": ({"units": -3}, "Dense 'a': Received an invalid value for `units`, expected a positive integer"),
    "argument": ({"wings": 2}, "Dense 'a': Unrecognized keyword arguments passed to Dense: {'wings': 2}"),
    "width": ({"units": 9}, "layer 'y'"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_what_is_wrong_in_a_file_is_said_of_its_layer(case, archive, tmp_path):
    change, expected = CONFIGS[case]
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(archive) as sound, zipfile.ZipFile(path, "w") as broken:
        for name in sound.namelist():
            content = sound.read(name)
            if name == "config.json":
                config = json.loads(content)
                _, inner, _ = config["config"]["layers"]
                inner["config"]["layers"][1]["config"].update(change)
                content = json.dumps(config)
            broken.writestr(name, content)
    with pytest.raises(kerasbn.ModelFileError) as caught:
        kerasbn.load(path)
    message = str(caught.value)
    assert expected in message
    assert "config=" not in message
    assert len(message) < 400


QUOTED = {
    "a key": (KeyError("net/a"), "'net/a' is missing"),
    "a sentence as a key": (KeyError("Unable to open object."), "Unable to open object"),
    "nothing": (ValueError(), "ValueError"),
    "lines and colours": (ValueError("\x1b[1mone\x1b[0m\n two."), "one two"),
}


@pytest.mark.parametrize("case", QUOTED)
def test_quoted(case):
    error, expected = QUOTED[case]
    assert quoted(error) == expected
