"""Exported ONNX files in JavaScript: onnxruntime-web is a build of its own, with fewer kernels."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import kerasbn
from tests.exporters.cases import CASES, assert_close, named, names_of
from tests.helpers import inference

ROOT = pathlib.Path(__file__).parent.parent.parent
MODULES = ROOT / "examples" / "serving" / "browser" / "node_modules"

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not (shutil.which("node") and MODULES.is_dir()), reason="needs Node, and onnxruntime-web: make web"
    ),
]

SERVED = [
    *("image classifier", "gelu, celu", "grouped convolution", "depthwise convolution", "transposed convolution"),
    *("1D convolutions", "3D convolution", "several inputs and outputs", "dictionaries", "adapted normalization"),
    *("operations", "any size", "attention", "nested structures", "masked LSTM", "images of bytes", "odd names"),
]


def test_onnxruntime_web_computes_what_keras_does(tmp_path):
    """In one process, as Node takes longer to start than to run them all."""
    tasks, expected = [], []
    for number, case in enumerate(SERVED):
        build, input_names, output_names = CASES[case]
        model = build()
        path = tmp_path / f"{number}.onnx"
        kerasbn.export(model, path, verify=False)
        for batch in (1, 3):
            inputs, by_name = named(model, names_of(input_names), batch)
            tasks.append((str(path), {name: _tensor(array) for name, array in by_name.items()}))
            outputs = inference(model, inputs)
            expected.append(dict(zip(names_of(output_names), outputs, strict=True)))
    script = pathlib.Path(__file__).with_name("run_in_node.mjs")
    done = subprocess.run(["node", script], input=json.dumps(tasks), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for outputs, got in zip(expected, json.loads(done.stdout), strict=True):
        arrays = {name: np.array(data, kind).reshape(shape) for name, (kind, data, shape) in got.items()}
        assert_close(outputs, arrays)


def _tensor(array):
    return array.dtype.name, array.ravel().tolist(), array.shape
