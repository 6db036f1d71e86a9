"""The command as a process of its own: exit status, both streams, and what it imports."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers import inference, random_inputs, randomize

pytestmark = pytest.mark.tensorflow

_RUN = "from kerasbn.cli.main import run; run()"
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "CUDA_"))}


def _python(code, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, env=_ENVIRONMENT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    dense = layers.Dense(8, activation="relu", name="a")
    model = keras.Sequential([keras.Input((6,), name="x"), dense, layers.Dense(3, name="y")])
    randomize(model).save(folder / "m.keras")
    model = keras.Sequential([keras.Input((6,)), dense, layers.Lambda(lambda x: 2 * x), layers.Dense(3)])
    model.save(folder / "lambda.keras")
    keras.Sequential([keras.Input((4, 4, 3)), layers.UpSampling2D(interpolation="bicubic")]).save(
        folder / "bicubic.keras"
    )
    (folder / "text.keras").write_text("not a model")
    return folder


_LAZY = """
import sys
from kerasbn.cli.main import _status
status = _status()
assert not {"tensorflow", "keras", "numpy", "onnx", "tf2onnx"} & set(sys.modules), sorted(sys.modules)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("arguments", "status", "stream", "text"),
    [
        ("--help", 0, "stdout", "MODEL"),
        ("-h", 0, "stdout", "--position"),
        ("--version", 0, "stdout", "kerasbn-rewrite, version "),
        ("missing.keras -o new.keras", 2, "stderr", "kerasbn-rewrite: 'missing.keras' does not exist"),
        ("text.keras -o new.keras", 2, "stderr", "kerasbn-rewrite: 'text.keras' is not a .keras archive"),
        ("m.keras -o m.keras --force", 2, "stderr", "kerasbn-rewrite: Output 'm.keras' is the model itself"),
        ("m.keras -o new.keras --position middle", 2, "stderr", "kerasbn-rewrite: Invalid value for '--position'"),
    ],
)
def test_answers_without_tensorflow(arguments, status, stream, text, folder):
    process = _python(_LAZY, *arguments.split(), cwd=folder)
    assert process.returncode == status
    streams = {"stdout": process.stdout, "stderr": process.stderr}
    assert text in streams.pop(stream)
    assert set(streams.values()) == {""}
    assert not (folder / "new.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("lambda.keras -o new.onnx", "--unsafe"),
        ("m.keras -o new.onnx --rule nothing=after", "matches no layer"),
        ("bicubic.keras -o new.tflite", "ResizeBicubic"),  # the converter tells of it at length, in C++
    ],
)
def test_one_line_in_spite_of_tensorflow(arguments, text, folder):
    process = _python(_RUN, *arguments.split(), cwd=folder)
    assert (process.returncode, process.stdout) == (2, "")
    (line,) = process.stderr.splitlines()
    assert line.startswith("kerasbn-rewrite: ")
    assert text in line
    assert not list(folder.glob("new.*"))


def test_code_that_is_trusted(folder, tmp_path):
    outputs = [tmp_path / name for name in ("new.keras", "new.onnx")]
    process = _python(_RUN, "lambda.keras", "--unsafe", "-o", outputs[0], "-o", outputs[1], cwd=folder)
    assert (process.returncode, process.stderr) == (0, "")
    assert all(output.exists() for output in outputs)


_WITHOUT_KERASBN = """
import sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
assert not [name for name in sys.modules if name.startswith("kerasbn")]
assert "a_bn" in [layer.name for layer in model.layers]
np.save(sys.argv[3], model(np.load(sys.argv[2]), training=False))
"""


def test_what_is_written_needs_no_kerasbn(folder, tmp_path):
    """All of it in new processes: rewrite, and load without kerasbn."""
    outputs = [tmp_path / name for name in ("new.keras", "new.onnx", "new.tflite", "new.xml", "new")]
    before = (folder / "m.keras").read_bytes()
    arguments = [part for output in outputs for part in ("-o", output)]
    process = _python(_RUN, "m.keras", "--norm", "keras", *arguments, cwd=folder)
    assert (process.returncode, process.stderr) == (0, "")
    assert all(str(output) in process.stdout for output in outputs)
    assert sorted(tmp_path.iterdir()) == sorted([*outputs, tmp_path / "new.bin"])
    assert (folder / "m.keras").read_bytes() == before

    source = keras.models.load_model(folder / "m.keras")
    inputs = random_inputs(source)
    np.save(tmp_path / "inputs.npy", inputs)
    process = _python(_WITHOUT_KERASBN, outputs[0], tmp_path / "inputs.npy", tmp_path / "outputs.npy", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (expected,) = inference(source, inputs)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, atol=1e-5 * np.max(np.abs(expected)))


@pytest.mark.parametrize("options", [("--dry-run",), ("-o", "new.keras", "--json"), ("-o", "new.keras")])
def test_nothing_reads_what_is_printed(options, folder, tmp_path):
    """Quietly, and with a status of its own: 1 would say that what was written is wrong."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", _RUN, folder / "m.keras", *options]
    run = subprocess.run(command, cwd=tmp_path, env=_ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_what_is_printed_finds_no_room(folder):
    command = [sys.executable, "-c", _RUN, folder / "m.keras", "--dry-run"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, env=_ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (run.returncode, run.stderr) == (2, "kerasbn-rewrite: No space left on device.\n")


def test_a_terminal_without_letters_for_the_table(folder):
    code = f"import sys; sys.stdout.reconfigure(encoding='ascii'); {_RUN}"
    process = _python(code, "m.keras", "--dry-run", cwd=folder)
    assert (process.returncode, process.stderr) == (0, "")
    assert "a#0" in process.stdout


_SCHEDULE = """
import keras

@keras.saving.register_keras_serializable("theirs")
class Slow(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.5 / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}
"""


def test_a_schedule_of_the_users_scaled_before(folder, tmp_path):
    """Nobody has imported its class in the process that reads the file."""
    code = f"{_SCHEDULE}\n" + (
        "model = keras.models.load_model('m.keras')\nmodel.compile(keras.optimizers.SGD(Slow()), 'mse')\n"
        "import kerasbn\nkerasbn.rewrite(model, learning_rate_scale=2.0).save('scaled.keras')"
    )
    assert _python(code, cwd=folder).returncode == 0
    arguments = ("scaled.keras", "-o", tmp_path / "again.keras", "--position", "none", "--lr-scale", "3")
    process = _python(f"{_SCHEDULE}\n{_RUN}", *arguments, cwd=folder)
    assert process.returncode == 0, process.stderr
    rate = "import kerasbn.layers\nprint(float(keras.models.load_model('again.keras').optimizer.learning_rate))"
    assert float(_python(f"{_SCHEDULE}\n{rate}", cwd=tmp_path).stdout) == 3.0


def _in_a_terminal(*arguments, columns, cwd):
    """The exit status, and all that a terminal of so many columns gets to see."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "kerasbn", *map(str, arguments)]
    environment = {**_ENVIRONMENT, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("COLUMNS", "LINES"):  # which would win over the terminal
        environment.pop(name, None)
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    with contextlib.suppress(OSError):  # so Linux tells the end of a terminal
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    os.close(ours)
    return process.wait(), b"".join(parts).decode()


def test_in_a_terminal(folder):
    """Progress goes as it came, the plan has colours and the width of the terminal, and TensorFlow says nothing."""
    status, seen = _in_a_terminal("m.keras", "--dry-run", columns=60, cwd=folder)
    assert status == 0
    for what in ("Starting Keras", "Reading m.keras", "Planning"):
        assert what in seen
    progress, plan, text = seen.partition("\x1b[1mPlan for")
    assert plan
    assert "\x1b[32minsert" in text
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in f"Plan for{text}".split("\r\n")]
    assert max(map(len, lines)) <= 60
    bars = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", progress))
    assert {bar.split()[0] for bar in bars if bar.split()} == {"Starting", "Reading", "Planning"}


def test_another_backend(folder, tmp_path):
    new = tmp_path / "new.keras"
    code = "from kerasbn.cli.main import _status; status = _status()"
    check = "import keras; assert keras.backend.backend() == 'jax'; raise SystemExit(status)"
    process = _python(f"{code}\n{check}", "m.keras", "--backend", "jax", "-o", new, cwd=folder)
    assert (process.returncode, process.stderr) == (0, "")
    source = keras.models.load_model(folder / "m.keras")
    inputs = random_inputs(source)
    (expected,) = inference(source, inputs)
    np.testing.assert_allclose(inference(keras.models.load_model(new), inputs)[0], expected, atol=1e-5)
