from pathlib import Path

import pytest

from kerasbn import OptionError
from kerasbn.files.formats import checked_format, companions_of, format_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *[
            ("a/m.onnx", "onnx"),
            ("m.x.onnx", "onnx"),
            ("m.tflite", "litert"),
            ("m.xml", "openvino"),
            ("m.keras", "keras"),
        ],
        *[("m", "saved_model"), ("a.b/m", "saved_model")],
    ],
)
def test_the_suffix_decides(path, expected):
    assert format_of(Path(path)) == expected


@pytest.mark.parametrize("path", ["m.h5", "m.pb", "m.ONNX", "m.lite", "m.v2"])
def test_a_suffix_of_nothing(path):
    with pytest.raises(OptionError, match=path):
        format_of(Path(path))


@pytest.mark.parametrize("name", ["onnx", "saved_model", "litert", "keras"])
def test_by_name(name):
    assert checked_format(name, Path("m.keras")) == name
    assert checked_format("openvino", Path("m.xml")) == "openvino"


@pytest.mark.parametrize(
    ("name", "path"), [("h5", "m"), ("", "m"), (".onnx", "m"), ("keras", "m"), ("keras", "m.h5"), ("openvino", "m")]
)
def test_a_name_of_nothing(name, path):
    with pytest.raises(OptionError, match="Option format"):
        checked_format(name, Path(path))


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [("onnx", "a.b.onnx", ["a.b.onnx.data"]), ("openvino", "a.b.xml", ["a.b.bin"]), ("keras", "m", [])],
)
def test_companions(kind, name, expected):
    assert companions_of(kind, Path("folder") / name) == tuple(Path("folder") / each for each in expected)
