"""Diagnose sound networks of many kinds, trained here for seconds each. None has a fault: what harms is a false alarm.

python tools/diagnose_nets.py        # writes docs/support/diagnose_nets.md
"""

import pathlib
from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
from keras import layers as L  # noqa: N812
from sklearn.datasets import load_digits

import kerasbn
from kerasbn.diagnosis import measured
from kerasbn.diagnosis.measured import figures_of
from kerasbn.diagnosis.watching import watched

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "support" / "diagnose_nets.md"
EPOCHS, BATCH = 12, 64


def bn(**options):
    return L.BatchNormalization(**{"momentum": 0.9, **options})


def conv(x, filters, size=3, *, activation="relu", norm=bn, before=True, kind=L.Conv2D, **options):
    x = kind(filters, size, padding="same", use_bias=False, **options)(x)
    x = norm()(x) if before else x
    x = L.Activation(activation)(x)
    return x if before else norm()(x)


def head(x):
    return L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(x))


def plain(**options):
    def body(x):
        for filters, strides in ((16, 1), (32, 2), (32, 1)):
            x = conv(x, filters, strides=strides, **options)
        return head(x)

    return body


def mlp(activation="relu", depth=3, norm=bn, rate=0.0):
    def body(x):
        x = L.Flatten()(x)
        for _ in range(depth):
            x = L.Activation(activation)(norm()(L.Dense(64, use_bias=False)(x)))
        x = L.Dropout(rate)(x) if rate else x
        return L.Dense(10, activation="softmax")(x)

    return body


def resnet(x, zero=False):
    x = conv(x, 16)
    for _ in range(3):
        y = L.Conv2D(16, 3, padding="same", use_bias=False)(conv(x, 16))
        x = L.ReLU()(L.Add()([x, bn(gamma_initializer="zeros" if zero else "ones")(y)]))
    return head(x)


def preactivation(x):
    x = L.Conv2D(16, 3, padding="same", use_bias=False)(x)
    for _ in range(3):
        y = L.Conv2D(16, 3, padding="same", use_bias=False)(L.ReLU()(bn()(x)))
        x = L.Add()([x, L.Conv2D(16, 3, padding="same", use_bias=False)(L.ReLU()(bn()(y)))])
    return head(L.ReLU()(bn()(x)))


def mobile(x):
    x = conv(x, 16, activation="relu6")
    for filters in (24, 32):
        x = L.ReLU(6)(bn()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
        x = conv(x, filters, 1, activation="relu6")
    return head(x)


def inverted(x):
    x = conv(x, 16)
    for _ in range(2):
        y = conv(x, 48, 1, activation="swish")
        y = L.Activation("swish")(bn()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
        gate = L.Dense(48, activation="sigmoid")(
            L.Dense(12, activation="swish")(L.GlobalAveragePooling2D(keepdims=True)(y))
        )
        y = bn()(L.Conv2D(16, 1, use_bias=False)(L.Multiply()([y, gate])))
        x = L.Add()([x, y])
    return head(x)


def dense_blocks(x):
    x = conv(x, 16)
    for _ in range(3):
        x = L.Concatenate()([x, conv(x, 8)])
    return head(x)


def inception(x):
    for _ in range(2):
        x = L.Concatenate()([conv(x, 8, 1), conv(x, 8, 3), conv(x, 8, 5)])
    return head(x)


def unet(x):
    one = conv(x, 16)
    two = conv(L.MaxPooling2D()(one), 32)
    up = conv(two, 16, kind=L.Conv2DTranspose, strides=2)
    return head(conv(L.Concatenate()([one, up]), 16))


def rows(x):
    x = L.Reshape((8, 8))(x)
    for _ in range(2):
        x = L.ReLU()(bn()(L.Conv1D(32, 3, padding="same", use_bias=False)(x)))
    return L.Dense(10, activation="softmax")(L.GlobalAveragePooling1D()(x))


def recurrent(x):
    x = L.LSTM(32)(bn()(L.Dense(32, use_bias=False)(L.Reshape((8, 8))(x))))
    return L.Dense(10, activation="softmax")(x)


def by_steps(x):
    x = L.TimeDistributed(L.Dense(32, use_bias=False))(L.Reshape((8, 8))(x))
    x = L.ReLU()(L.TimeDistributed(bn())(x))
    return L.Dense(10, activation="softmax")(L.Flatten()(x))


def nested(x):
    inner = keras.Sequential(
        [keras.Input((8, 8, 16)), L.Conv2D(16, 3, padding="same", use_bias=False), bn(), L.ReLU()], name="block"
    )
    return head(inner(conv(x, 16)))


def siamese(x):
    tower = keras.Sequential([keras.Input((8, 4, 1)), L.Conv2D(16, 3, use_bias=False), bn(), L.ReLU(), L.Flatten()])
    halves = [tower(L.Cropping2D(((0, 0), crop))(x)) for crop in ((0, 4), (4, 0))]
    return L.Dense(10, activation="softmax")(L.Concatenate()(halves))


def dropped_late(x):
    return L.Dense(10, activation="softmax")(L.Dropout(0.5)(L.GlobalAveragePooling2D()(conv(conv(x, 16), 32))))


def grouped(x):
    x = L.ReLU()(L.GroupNormalization(4)(L.Conv2D(16, 3, padding="same")(x)))
    return head(conv(x, 32))


def first_normalized(x):
    return plain()(bn()(x))


class Subclassed(keras.Model):
    """Convolutions in a call of its own."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = L.Conv2D(16, 3, use_bias=False), bn()
        self.conv2, self.bn2 = L.Conv2D(32, 3, use_bias=False), bn()
        self.pool, self.head = L.GlobalAveragePooling2D(), L.Dense(10, activation="softmax")

    def call(self, inputs, training=False):
        """Apply the layers, one after the other."""
        x = keras.ops.relu(self.bn1(self.conv1(inputs), training=training))
        x = keras.ops.relu(self.bn2(self.conv2(x), training=training))
        return self.head(self.pool(x))


def functional(body: Callable) -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, body(inputs))


def trained(model, optimizer=None, epochs=EPOCHS, **options):
    x, y = digits()
    model.compile(optimizer or keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, **options)
    return model


def fine_tuned(freeze):
    model = trained(functional(plain()))
    freeze(model)
    return trained(model, keras.optimizers.Adam(1e-4), epochs=4)


def trunk_frozen():
    trunk = functional(plain())
    trained(trunk)
    trunk.trainable = False
    inputs = keras.Input((8, 8, 1))
    x = keras.Model(trunk.inputs, trunk.layers[-3].output, name="trunk")(inputs, training=False)
    model = keras.Model(inputs, head(conv(x, 16)))
    return trained(model)


def excluded():
    optimizer = keras.optimizers.AdamW(3e-3, weight_decay=1e-3)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return trained(functional(plain()), optimizer)


def rewritten():
    inputs = keras.Input((8, 8, 1))
    x = L.Conv2D(16, 3, activation="relu")(inputs)
    x = L.Conv2D(32, 3, activation="relu")(x)
    return trained(kerasbn.rewrite(keras.Model(inputs, head(x)), dropout="none"))


def mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return trained(functional(plain()), epochs=4)
    finally:
        keras.config.set_dtype_policy("float32")


def calibrated():
    model = trained(functional(plain(norm=lambda: bn(momentum=0.99))), epochs=3)
    return kerasbn.calibrate(model, digits()[0])


NETS: dict[str, Callable[[], keras.Model]] = {
    "convolutions": lambda: trained(functional(plain())),
    "convolutions, Keras's momentum": lambda: trained(functional(plain(norm=L.BatchNormalization)), epochs=18),
    "convolutions, few steps, calibrated": calibrated,
    "convolutions, normalized after ReLU": lambda: trained(functional(plain(before=False))),
    "convolutions, tanh": lambda: trained(functional(plain(activation="tanh"))),
    "convolutions, gelu": lambda: trained(functional(plain(activation="gelu"))),
    "convolutions, kerasbn's layer": lambda: trained(
        functional(plain(norm=lambda: kerasbn.layers.BatchNormalization(momentum=0.95, zero_debias=True)))
    ),
    "convolutions, ghost batches": lambda: trained(
        functional(plain(norm=lambda: kerasbn.layers.BatchNormalization(momentum=0.9, virtual_batch_size=16)))
    ),
    "convolutions, SGD": lambda: trained(functional(plain()), keras.optimizers.SGD(0.05, momentum=0.9)),
    "convolutions, AdamW without gamma": excluded,
    "convolutions, averaged weights": lambda: trained(
        functional(plain()), keras.optimizers.Adam(3e-3, use_ema=True, ema_momentum=0.95)
    ),
    "convolutions, mixed precision": mixed_precision,
    "convolutions, inputs normalized": lambda: trained(functional(first_normalized)),
    "fine-tuned, frozen": lambda: fine_tuned(kerasbn.freeze),
    "fine-tuned, statistics frozen": lambda: fine_tuned(lambda model: kerasbn.freeze(model, what="statistics")),
    "new layers on a frozen trunk": trunk_frozen,
    "dense layers": lambda: trained(functional(mlp())),
    "dense layers, 6 deep": lambda: trained(functional(mlp("elu", 6))),
    "dense layers, Dropout behind": lambda: trained(functional(mlp(rate=0.5))),
    "Dropout in the head": lambda: trained(functional(dropped_late)),
    "ResNet": lambda: trained(functional(resnet)),
    "ResNet, gamma from zero": lambda: trained(functional(lambda x: resnet(x, zero=True))),
    "ResNet, pre-activation": lambda: trained(functional(preactivation)),
    "MobileNet": lambda: trained(functional(mobile)),
    "inverted residuals, squeeze and excite": lambda: trained(functional(inverted)),
    "DenseNet": lambda: trained(functional(dense_blocks)),
    "Inception": lambda: trained(functional(inception)),
    "U-Net": lambda: trained(functional(unet)),
    "Conv1D": lambda: trained(functional(rows)),
    "LSTM": lambda: trained(functional(recurrent)),
    "TimeDistributed": lambda: trained(functional(by_steps)),
    "model inside": lambda: trained(functional(nested)),
    "siamese": lambda: trained(functional(siamese)),
    "group normalization ahead": lambda: trained(functional(grouped)),
    "subclassed": lambda: trained(Subclassed()),
    "rewritten": rewritten,
}


def digits():
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16).astype("float32"), labels


def main() -> None:
    x, y = digits()
    lines, alarms = [], Counter()
    for name, make in NETS.items():
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = make()
        sample = x[:512]
        accuracy = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
        diagnosis = kerasbn.diagnose(model, sample)
        found = Counter(each.kind for each in diagnosis.findings)
        alarms.update(kind for kind in found.elements() if kind.harms)
        figures = figures_of(watched(model, sample, None))
        words = ", ".join(f"{count} {kind.value}" for kind, count in found.items()) or "-"
        cells = [f"{accuracy:.1%}", *(f"{figure:.2g}" for figure in figures), words]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    PAGE.write_text(_page(lines, alarms))


def _page(lines, alarms) -> str:
    limits = [measured.SIGMAS, measured.RATIO, measured.DISTANCE, measured.DEAD, measured.HUGE, measured.SHIFT]
    return "\n".join(
        [
            "# Sound networks, diagnosed",
            "",
            f"`python tools/diagnose_nets.py` trains {len(lines)} networks without faults on scikit-learn's digits,",
            "and diagnoses each on 512 of the images. The figures are the greatest of all its unfrozen layers,",
            f"of what the thresholds of `kerasbn.diagnose` are for. False alarms: {alarms.total()}.",
            "",
            "| network | accuracy | mean off, sigmas | variance off, times | outputs off | dead | greatest value | "
            "variance with Dropout | found |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---|",
            f"| threshold | | {' | '.join(f'{limit:g}' for limit in limits)} | |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
