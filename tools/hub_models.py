"""Networks and tasks of keras-hub, which are made of blocks: folded, normalized anew, trained, saved.

    pip install keras-hub
    python tools/hub_models.py                  # writes docs/support/hub_models.md, some minutes

The networks are built to published architectures, with random weights, BN statistics and gammas over
decades and of both signs, on images of 64x64. "Difference" is the greatest one at inference from the
source's outputs, relative to the greatest output, and marked as in `tools/fold_applications.py` where it
is more than rounding. Placement: stripped of every BN and planned with
`position="auto"`, as in `tools/expert_placement.py`. Tasks are image classifiers with their
preprocessor: rewritten, trained by their own `fit` on images of bytes, folded, exported, saved.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import keras_hub
import numpy as np
from keras_hub.src.utils.timm import (
    convert_cspnet,
    convert_efficientnet,
    convert_hgnetv2,
    convert_mobilenet,
    convert_resnet,
)

import kerasbn
from expert_placement import authors_places, our_places, stripped
from kerasbn.catalog.roles import Role, role_of
from kerasbn.source.source import Source
from networks import difference, normalizations, randomize, verdict
from reporting import Table

SIZE = 64
"""The side of the images."""


def _published(converter: Any, architecture: str, shape: str = "image_shape") -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        config = converter.convert_backbone_config({"architecture": architecture})
        backbone: keras.Model = converter.backbone_cls(**{**config, shape: (SIZE, SIZE, 3)})
        return backbone

    return make


def _vit() -> keras.Model:
    shape = {"image_shape": (SIZE, SIZE, 3), "patch_size": (8, 8)}
    backbone: keras.Model = keras_hub.models.ViTBackbone(**shape, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128)
    return backbone


NETWORKS: dict[str, tuple[str, Callable[[], keras.Model]]] = {
    "ResNet18": ("ResNet", _published(convert_resnet, "resnet18")),
    "ResNet50": ("ResNet", _published(convert_resnet, "resnet50")),
    "ResNet50V2": ("ResNet", _published(convert_resnet, "resnetv2_50")),
    "CSPDarkNet53": ("CSPNet", _published(convert_cspnet, "cspdarknet53")),
    "MobileNetV3Small": ("MobileNet", _published(convert_mobilenet, "mobilenetv3_small_100")),
    "MobileNetV3Large": ("MobileNet", _published(convert_mobilenet, "mobilenetv3_large_100")),
    "EfficientNetB0": ("EfficientNet", _published(convert_efficientnet, "efficientnet_b0", "input_shape")),
    "EfficientNetLite0": ("EfficientNet", _published(convert_efficientnet, "efficientnet_lite0", "input_shape")),
    "EfficientNetV2T": ("EfficientNet", _published(convert_efficientnet, "efficientnetv2_rw_t", "input_shape")),
    "HGNetV2B0": ("HGNetV2", _published(convert_hgnetv2, "hgnetv2_b0")),
    "ViT": ("ViT", _vit),
}
"""The networks, each with the first part of the names of its classes."""


def _retinanet() -> keras.Model:
    config = convert_resnet.convert_backbone_config({"architecture": "resnet18"})
    encoder = convert_resnet.backbone_cls(**{**config, "image_shape": (256, 256, 3)})
    backbone = keras_hub.models.RetinaNetBackbone(image_encoder=encoder, min_level=3, max_level=5, use_p5=False)
    detector: keras.Model = keras_hub.models.RetinaNetObjectDetector(
        backbone=backbone,
        num_classes=5,
        bounding_box_format="yxyx",
        **dict.fromkeys(("label_encoder", "anchor_generator", "preprocessor")),
    )
    return detector


def _deeplab() -> keras.Model:
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=NETWORKS["ResNet18"][1](),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[6, 12, 18],
        upsampling_size=4,
    )
    segmenter: keras.Model = keras_hub.models.DeepLabV3ImageSegmenter(
        backbone=backbone, num_classes=4, activation="softmax", preprocessor=None
    )
    return segmenter


def _segformer() -> keras.Model:
    encoder = keras_hub.models.MiTBackbone(
        layerwise_depths=[1, 1, 1, 1],
        num_layers=4,
        layerwise_num_heads=[1, 2, 5, 8],
        layerwise_sr_ratios=[8, 4, 2, 1],
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        hidden_dims=[8, 16, 40, 64],
        max_drop_path_rate=0.1,
        image_shape=(SIZE, SIZE, 3),
    )
    segmenter: keras.Model = keras_hub.models.SegFormerImageSegmenter(
        backbone=keras_hub.models.SegFormerBackbone(image_encoder=encoder, projection_filters=16),
        num_classes=4,
        preprocessor=None,
    )
    return segmenter


PREDICTING: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "RetinaNet": (_retinanet, 2),
    "DeepLabV3": (_deeplab, 1),
    "SegFormer": (_segformer, 1),
}
"""Detectors and segmenters, each with the number of layers that yield its predictions."""

TASKS = ("ResNet18", "MobileNetV3Small", "EfficientNetB0", "HGNetV2B0", "ViT")
"""The networks that tasks are made of."""


def network(name: str) -> tuple[str, ...]:
    """The row of one network: folded, and stripped and normalized anew."""
    model = NETWORKS[name][1]()
    randomize(model)
    images = np.random.default_rng(1).normal(size=(2, SIZE, SIZE, 3)).astype("float32")
    folded = kerasbn.fold(model)
    left = len(normalizations(folded))
    same = verdict(model, folded, images)
    graph = Source.of(model, copy=False, holds=lambda layer: role_of(layer) is Role.LINEAR).graph
    theirs, ours = authors_places(graph), our_places(stripped(graph))
    right = len(theirs & ours)
    f1 = f"{2 * right / (len(theirs) + len(ours)):.3f}" if theirs else ""
    found = len(normalizations(model))
    return name, str(found), str(found - left), str(left), same, str(len(theirs)), str(len(ours)), f1


def predictions(name: str) -> tuple[str, ...]:
    """The row of a detector or segmenter: what is left alone as yielding predictions, in every position."""
    make, heads = PREDICTING[name]
    model = make()
    found = set()
    for position in ("auto", "before", "after"):
        skips = kerasbn.plan(model, position=position).skips
        found.add(tuple(skip.site for skip in skips if skip.reason is kerasbn.Reason.OUTPUT))
    (left,) = found
    return name, ", ".join(f"`{site}`" for site in left), f"{len(left)} of {heads}"


def task_of(name: str) -> keras.Model:
    """An image classifier of three classes, with its preprocessor."""
    family, make = NETWORKS[name]

    def kind(namespace: Any, suffix: str) -> Any:
        return getattr(namespace, family + suffix)

    converter = kind(keras_hub.layers, "ImageConverter")(image_size=(SIZE, SIZE), scale=1 / 255)
    preprocessor = kind(keras_hub.models, "ImageClassifierPreprocessor")(converter)
    pooling = {"pooling": "token"} if family == "ViT" else {}
    task: keras.Model = kind(keras_hub.models, "ImageClassifier")(
        make(), num_classes=3, preprocessor=preprocessor, **pooling
    )
    task.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    randomize(task)
    return task


def task(name: str) -> tuple[str, ...]:
    """The row of one task."""
    model = task_of(name)
    generator = np.random.default_rng(1)
    images, classes = generator.integers(0, 256, size=(8, SIZE, SIZE, 3)).astype("uint8"), np.arange(8) % 3
    expected = model.predict(images, verbose=0)
    plan = kerasbn.plan(model)
    result = plan.apply()
    same = _apart(expected, result, images)
    loss = result.fit(images, classes, batch_size=4, verbose=0).history["loss"][-1]
    folded = kerasbn.fold(model)
    left = f"{len(normalizations(model))}, {len(normalizations(folded))} left"
    same_folded = _apart(expected, folded, images)
    with tempfile.TemporaryDirectory() as folder:
        exported = _outcome(lambda: f"{kerasbn.export(model, Path(folder, 'task.onnx')).max_error:.0e}")
        saved = _outcome(lambda: _saved(result, Path(folder, "task.keras"), images))
    inserted = str(sum(edit.kind == "insert" for edit in plan.edits))
    return (*(type(result).__name__, name, inserted, same, f"{loss:.2f}", left, same_folded, exported, saved),)


def _saved(model: keras.Model, path: Path, images: Any) -> str:
    model.save(path)
    return _apart(model.predict(images, verbose=0), keras.models.load_model(path), images)


def _apart(expected: Any, model: keras.Model, images: Any) -> str:
    return f"{difference([expected], [model.predict(images, verbose=0)]):.0e}"


def _outcome(do: Callable[[], str]) -> str:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return do()
    except (kerasbn.KerasBNError, NotImplementedError) as error:
        return f"refused: {str(error).partition('. ')[0]}"


@click.command(help=__doc__)
@click.option("--network", "chosen", multiple=True, type=click.Choice([*NETWORKS, *PREDICTING]), help="All by default.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("docs/support/hub_models.md"), show_default=True
)
def main(chosen: tuple[str, ...], output: Path) -> None:
    rows: dict[Callable[[str], tuple[str, ...]], list[tuple[str, ...]]] = {network: [], task: [], predictions: []}
    for measure, names in ((network, NETWORKS), (task, TASKS), (predictions, PREDICTING)):
        for name in names:
            if chosen and name not in chosen:
                continue
            rows[measure].append(measure(name))
            click.echo(" | ".join(rows[measure][-1]))
            keras.backend.clear_session()
            gc.collect()
    tables = (
        Table(
            "Networks",
            ("network", "BN", "folded", "left", "difference", "authors' BN", "kerasbn's", "F1"),
            tuple(rows[network]),
        ),
        Table(
            "Tasks",
            (
                *("class", "network", "BN inserted", "difference", "loss after fit"),
                *("BN, folded", "difference folded", "difference exported", "difference loaded"),
            ),
            tuple(rows[task]),
        ),
        Table(
            "Predictions",
            ("detector or segmenter", "layers left alone in every position", "of those that predict"),
            tuple(rows[predictions]),
        ),
    )
    if not chosen:
        used = ", ".join(f"{name} {version(name)}" for name in ("keras", "keras-hub", "kerasbn"))
        output.write_text(
            f"# keras-hub\n\nMade by `python tools/hub_models.py`, which says what is measured ({used}).\n\n"
            + "\n".join(table.markdown() for table in tables)
        )


if __name__ == "__main__":
    main()
