"""Files of Keras 2, read without it: by family of layers and kind of file, and networks of `keras.applications`.

    python tools/loading.py                                              # the families
    pip install --target /tmp/keras2 --no-deps "tf_keras==2.21.*"
    PYTHONPATH=/tmp/keras2 python tools/loading.py --networks MobileNetV2,ResNet50   # these, a minute or two each
    PYTHONPATH=/tmp/keras2 python tools/loading.py --networks missing    # not in docs/support/loading.md yet

The families are those of `tools/make_keras2_files.py`; networks have random weights, the statistics of random images,
and 96x96 inputs. What stands in the table is the greatest difference from what Keras 2 computed, relative to the
greatest output; or "refused", which is an error with the layer's name. Whatever else comes makes the tool fail, and so
does a difference above 1e-5, unless both compute the same in float64: deep networks blow rounding up.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import keras
import numpy as np

from kerasbn import ModelFileError
from kerasbn.loading.load import read

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "loading" / "keras2"
PAGE = ROOT / "docs" / "support" / "loading.md"
KINDS = {"model.h5": ".h5", "model.keras": ".keras", "model": "SavedModel", "model.json": "JSON + .weights.h5"}
FAMILY = ("family", "layers", *KINDS.values())
NETWORK = ("network", *KINDS.values(), ".h5, in float64")
NAMES = {"InputLayer": "", "Functional": "", "Sequential": "", "TFOpLambda": "functions", "SlicingOpLambda": "slices"}
MOST, EXACT = 1e-5, 1e-10
"""The greatest differences, in float32 and in float64."""


def outcome(path: Path, inputs: Mapping[str, Any], expected: list[np.ndarray]) -> str | float:
    """How far a model that is read is from what Keras 2 computed, or what is said of it."""
    if not path.exists():
        return "not written by Keras 2"
    try:
        weights = path.with_suffix(".weights.h5") if path.suffix == ".json" else None
        model = read(path, weights=weights).model
    except ModelFileError as error:
        (name,) = re.findall(r"layer '([^']+)'", str(error))[:1] or [""]
        return f"refused: `{name}`" if name else f"**{error}**"
    structure = model.inputs if isinstance(model, keras.Sequential) else model.input
    given: Any = inputs if isinstance(structure, dict) else list(inputs.values())
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    outputs = keras.tree.flatten(model(given, training=False))
    computed = map(keras.ops.convert_to_numpy, outputs)
    return max(difference(got, wanted) for got, wanted in zip(computed, expected, strict=True))


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The greatest difference, relative to the greatest output."""
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def shown(found: str | float, most: float = MOST) -> str:
    """A cell; what is wrong is bold."""
    if isinstance(found, str):
        return found
    return f"{found:.0e}" if found <= most else f"**{found:.0e}**"


def classes_in(config: Any) -> set[str]:
    """The classes of layers in what a model is made from."""
    if isinstance(config, list):
        return set().union(*map(classes_in, config))
    if not isinstance(config, dict):
        return set()
    is_layer = isinstance(config.get("config"), dict) and "name" in config["config"]
    own = {NAMES.get(config["class_name"], config["class_name"])} if is_layer else set()
    return own.union(*(classes_in(value) for key, value in config.items() if key != "dtype")) - {""}


def family(path: Path) -> tuple[str, ...]:
    """The row of a family."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        content = np.load(Path(folder) / "model.npz")
        inputs = {
            name.removeprefix("input_"): keras.ops.convert_to_tensor(
                content[name].tolist() if content[name].dtype.kind == "U" else content[name]
            )
            for name in content
            if name.startswith("input_")
        }
        expected = [content[name] for name in content if name.startswith("output_")]
        layers = classes_in(json.loads((Path(folder) / "model.json").read_text()))
        found = [outcome(Path(folder) / kind, inputs, expected) for kind in KINDS]
        return ", ".join(sorted(layers)), *map(shown, found)


def network(name: str) -> tuple[str, ...]:
    """The row of a network that Keras 2 saves here and now."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = made(name)
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "gamma" in weight.name:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif "beta" in weight.name:
            weight.assign(random.normal(0.0, 0.2, weight.shape))
    inputs = random.uniform(0.0, 1.0, (16, 96, 96, 3)).astype("float32")
    for norm in (layer for layer in model._flatten_layers() if "BatchNormalization" in type(layer).__name__):
        norm.momentum = 0.0
    model(inputs, training=True)  # with statistics of their own, deep networks do not blow rounding up
    inputs = inputs[:2]
    expected = [np.asarray(model(inputs, training=False))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        model.save(path / "model.h5")
        model.save(path / "model.keras")
        model.save(path / "model", save_format="tf")
        (path / "model.json").write_text(model.to_json())
        model.save_weights(path / "model.weights.h5")
        del model
        tf_keras.backend.clear_session()
        gc.collect()
        found = [outcome(path / kind, {"x": inputs}, expected) for kind in KINDS]
        if all(isinstance(each, str) or each <= MOST for each in found):
            return *map(shown, found), ""
        exactly = in_float64(name, path, inputs.astype("float64"))
        of_hdf5 = found[0]  # what the others read has to be the same network, to the last bit
        most = [np.inf if exactly <= EXACT and each == of_hdf5 else MOST for each in found]
        return *map(shown, found, most), f"{exactly:.0e}"


def made(name: str) -> Any:
    """A network of Keras 2."""
    import tf_keras

    make = getattr(tf_keras.applications, name)
    return make(weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None)


def in_float64(name: str, folder: Path, inputs: np.ndarray) -> float:
    """How far the model that is read from the .h5 file is from that of Keras 2, where both compute in float64."""
    import tf_keras

    tf_keras.backend.set_floatx("float64")
    try:
        model = made(name)
        model.load_weights(folder / "model.weights.h5")
        expected = np.asarray(model(inputs, training=False))
    finally:
        tf_keras.backend.set_floatx("float32")
        tf_keras.backend.clear_session()
    loaded = read(folder / "model.h5").model
    twin = keras.models.model_from_json(loaded.to_json().replace("float32", "float64"))
    twin.set_weights(loaded.get_weights())
    for layer in twin.layers:
        if isinstance(layer, keras.layers.Normalization):  # which keeps what it is given in float32
            for name in ("mean", "variance"):
                shape = getattr(layer, name).shape
                setattr(layer, name, np.reshape(np.asarray(layer.get_config()[name], "float64"), shape))
    return difference(keras.ops.convert_to_numpy(twin(inputs, training=False)), expected)


def rows_of(page: str, title: str) -> dict[str, tuple[str, ...]]:
    """A table of the page as it is."""
    part = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in part.splitlines() if line[:2] == "| "]
    return {row[0]: tuple(row[1:]) for row in rows[2:]}


def table(title: str, heading: Sequence[str], rows: Mapping[str, tuple[str, ...]]) -> str:
    lines = [heading, ["---"] * len(heading), *([name, *cells] for name, cells in rows.items())]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def every(work: Callable[[Any], tuple[str, ...]], names: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, argument in names.items():
        found[name] = work(argument)
        print(name, *found[name], sep="  ", flush=True)
        keras.backend.clear_session()
    return found


@click.command()
@click.option("--networks", default="", help="Networks of keras.applications by their names, or 'missing'.")
def main(networks: str) -> None:
    page = PAGE.read_text() if PAGE.exists() else ""
    families = rows_of(page, "Families")
    tried = {name: (*row, "")[: len(NETWORK) - 1] for name, row in rows_of(page, "Networks").items()}
    if not networks:
        families = every(family, {path.stem: path for path in sorted(FOLDER.glob("*.zip"))})
    right = {name for name, row in tried.items() if not is_wrong(row)}
    names = [name for name in all_networks() if name not in right] if networks == "missing" else networks.split(",")
    write(families, tried)
    for name in filter(None, names):
        tried |= every(network, {name: name})
        write(families, tried)
    wrong = [name for name, row in {**families, **tried}.items() if is_wrong(row)]
    sys.exit(f"wrong: {', '.join(wrong)}" if wrong else 0)


def is_wrong(row: Sequence[str]) -> bool:
    """Whether a model was read as another one, or an error is not the one that it should be."""
    return any(cell.startswith("**") for cell in row)


def all_networks() -> list[str]:
    """Every network that Keras 2 makes, the small ones first."""
    import tf_keras

    found = [name for name in dir(tf_keras.applications) if callable(getattr(tf_keras.applications, name))]
    large = re.compile("XLarge|Large|B[4-7]|V2[LM]|(320|160|120|080|064)$|(X|Y)(320|160)|152|201|VGG")
    return sorted(found, key=lambda name: (bool(large.search(name)), name))


def write(families: Mapping[str, tuple[str, ...]], networks: Mapping[str, tuple[str, ...]]) -> None:
    """Write the page."""
    written = json.loads(keras_2_config())["keras_version"]
    text = (
        "# Files of Keras 2\n\n"
        f"What `kerasbn.load` makes of files that Keras {written} wrote: the greatest difference from what Keras 2 "
        "computed, relative to\nthe greatest output, or the layer for which the file is refused. "
        "`python tools/loading.py` writes this page.\n\n"
        "Vocabularies that were adapted are in no `.h5` file: save such models as `.keras` or SavedModel. Subclassed "
        "models have\ntheir code in no file: make them in Python, and load their weights.\n\n"
    )
    PAGE.write_text(
        text
        + table("Families", FAMILY, families)
        + "\n"
        + table("Networks", NETWORK, dict(sorted(networks.items())))
        + "\nThe last column is the difference where both compute in float64, for networks that blow rounding up above "
        "1e-5.\n"
    )


def keras_2_config() -> str:
    with zipfile.ZipFile(FOLDER / "dense.zip") as archive:
        return archive.read("model.json").decode()


if __name__ == "__main__":
    main()
