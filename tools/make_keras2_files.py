"""Small models of Keras 2 in each of its kinds of file, with what they compute: `tests/loading/keras2`.

    pip install --target /tmp/keras2 --no-deps tf_keras
    PYTHONPATH=/tmp/keras2 python tools/make_keras2_files.py            # all
    PYTHONPATH=/tmp/keras2 python tools/make_keras2_files.py gru lstm   # these alone

Each family is a model with random weights and statistics. Its archive holds it as `model.h5`, `model.keras`, the folder
`model` of a SavedModel without what is in it for serving alone, and `model.json` with `model.weights.h5`; and
`model.npz`, inputs and outputs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from google.protobuf.message import Message
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tf_keras import layers as L  # noqa: N812

FOLDER = Path(__file__).parent.parent / "tests" / "loading" / "keras2"
IMAGE, STEPS, VECTOR = (6, 6, 3), (5, 3), (4,)
FAMILIES: dict[str, Callable[[], keras.Model]] = {}


def family(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    FAMILIES[build.__name__.strip("_")] = build
    return build


def _chain(shape: tuple[int | None, ...], *layers: Any, dtype: str | None = None) -> keras.Model:
    inputs = x = keras.Input(shape, dtype=dtype, name="x")
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@family
def dense() -> keras.Model:
    return keras.Sequential(
        [
            L.Dense(5, "relu", kernel_regularizer="l2", input_shape=VECTOR),
            L.Dense(4, "gelu", kernel_initializer=keras.initializers.VarianceScaling(2.0)),
            L.LeakyReLU(0.1),
            L.Dense(4, kernel_constraint=keras.constraints.MaxNorm(3.0)),
            L.PReLU(),
            L.Dense(3, "hard_sigmoid"),
            L.Activation("hard_sigmoid"),
        ]
    )


@family
def compiled() -> keras.Model:
    model = keras.Sequential([L.Dense(4, "tanh", input_shape=VECTOR), L.BatchNormalization(), L.Dense(2)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    model.compile(keras.optimizers.Adam(schedule, beta_1=0.8), "mse", metrics=["mae"])
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(32, 4)), random.normal(size=(32, 2)), batch_size=8, epochs=1, verbose=0)
    return model


@family
def conv() -> keras.Model:
    return _chain(
        IMAGE,
        L.Conv2D(4, 3, padding="same", activation="swish", name="first/convolution"),
        L.ZeroPadding2D(1),
        L.Conv2D(4, 3, strides=2, groups=2),
        L.UpSampling2D(2, interpolation="bilinear"),
        L.Cropping2D(1),
        L.MaxPooling2D(2, padding="same"),
        L.Conv2D(6, 1, dilation_rate=1, use_bias=False),
        L.AveragePooling2D(2, padding="same"),
        L.GlobalAveragePooling2D(),
    )


@family
def conv_1d() -> keras.Model:
    return _chain(STEPS, L.Conv1D(4, 3, padding="causal"), L.MaxPooling1D(2), L.Conv1DTranspose(3, 2), L.Flatten())


@family
def conv_3d() -> keras.Model:
    return _chain((4, 4, 4, 2), L.Conv3D(2, 3), L.Conv3DTranspose(2, 2), L.GlobalMaxPooling3D())


@family
def depthwise() -> keras.Model:
    return _chain(
        IMAGE,
        L.DepthwiseConv2D(3, depth_multiplier=2),
        L.ReLU(6.0),
        L.Flatten(),
        L.Reshape((16, 6)),
        L.DepthwiseConv1D(3),
    )


@family
def transposed() -> keras.Model:
    return _chain(IMAGE, L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1), L.Conv2DTranspose(2, 2))


@family
def separable() -> keras.Model:
    return _chain(IMAGE, L.SeparableConv2D(4, 3, depth_multiplier=2), L.Reshape((16, 4)), L.SeparableConv1D(3, 3))


@family
def batch_normalization() -> keras.Model:
    return _chain(
        IMAGE,
        L.Conv2D(4, 3),
        L.BatchNormalization(fused=False),
        L.BatchNormalization(scale=False),
        L.Flatten(),
        L.BatchNormalization(epsilon=0.01),
    )


@family
def sync_batch_normalization() -> keras.Model:
    return _chain(
        IMAGE, L.Conv2D(4, 3), L.experimental.SyncBatchNormalization(), L.BatchNormalization(synchronized=True)
    )


@family
def gru() -> keras.Model:
    return _chain(
        STEPS, L.GRU(4, return_sequences=True), L.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid")
    )


@family
def lstm() -> keras.Model:
    return _chain(STEPS, L.LSTM(4, return_sequences=True, dropout=0.2), L.LSTM(3, recurrent_activation="hard_sigmoid"))


@family
def bidirectional() -> keras.Model:
    return _chain(
        STEPS,
        L.Bidirectional(L.LSTM(4, return_sequences=True)),
        L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum"),
        L.Bidirectional(L.SimpleRNN(2), backward_layer=L.SimpleRNN(2, go_backwards=True, activation="relu")),
    )


@family
def simple_rnn() -> keras.Model:
    cells = [L.LSTMCell(3), L.GRUCell(2)]
    return _chain(
        STEPS, L.SimpleRNN(4, return_sequences=True), L.RNN(cells, return_sequences=True), L.RNN(L.SimpleRNNCell(2))
    )


@family
def recurrent_states() -> keras.Model:
    inputs = keras.Input(STEPS, name="x")
    _, h, c = L.LSTM(4, return_state=True)(inputs)
    decoded = L.LSTM(4, return_sequences=True)(inputs, initial_state=[h, c])
    return keras.Model(inputs, L.TimeDistributed(L.Dense(2))(decoded))


@family
def conv_lstm() -> keras.Model:
    return _chain((3, 5, 5, 2), L.ConvLSTM2D(2, 3))


@family
def masking() -> keras.Model:
    return _chain(STEPS, L.Masking(0.0), L.LSTM(4, return_sequences=True), L.GRU(3))


@family
def embedding() -> keras.Model:
    return _chain(
        (5,), L.Embedding(9, 4, mask_zero=True, input_length=5), L.SpatialDropout1D(0.2), L.GRU(3), dtype="int32"
    )


@family
def attention() -> keras.Model:
    inputs = keras.Input((5, 6), name="x")
    x = L.MultiHeadAttention(2, 3)(inputs, inputs)
    x = L.LayerNormalization()(L.Add()([inputs, x]))
    y = L.Attention(use_scale=True)([x, inputs])
    z = L.AdditiveAttention()([x, y])
    x = L.Concatenate()([y, z])
    return keras.Model(
        inputs, L.GlobalAveragePooling1D()(L.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d")(x))
    )


@family
def normalizations() -> keras.Model:
    return _chain(
        (4, 6),
        L.LayerNormalization(epsilon=1e-4),
        L.GroupNormalization(3),
        L.UnitNormalization(),
        L.LayerNormalization(axis=[1, 2]),
    )


@family
def dropouts() -> keras.Model:
    return _chain(
        IMAGE,
        *(L.SpatialDropout2D(0.3), L.GaussianNoise(0.1), L.GaussianDropout(0.1), L.AlphaDropout(0.1)),
        *(
            L.Reshape((36, 3)),
            L.SpatialDropout1D(0.3),
            L.Dropout(0.5, noise_shape=(None, 1, 3)),
            L.Dense(2),
            L.ActivityRegularization(l2=0.1),
        ),
    )


@family
def augmentation() -> keras.Model:
    return _chain(
        IMAGE,
        *(
            L.RandomFlip(),
            L.RandomRotation(0.1),
            L.RandomZoom(0.1),
            L.RandomContrast(0.1),
            L.RandomTranslation(0.1, 0.1),
        ),
        *(L.Rescaling(1 / 255.0, offset=-1.0), L.Resizing(8, 8), L.CenterCrop(4, 4), L.Conv2D(2, 3)),
    )


@family
def nested() -> keras.Model:
    block = keras.Sequential([L.Dense(4, "relu", input_shape=(4,)), L.BatchNormalization()], name="block")
    inside = keras.Input((4,))
    branch = keras.Model(inside, L.Add()([L.Dense(4)(inside), block(inside)]), name="branch")
    inputs = keras.Input(VECTOR, name="x")
    shared = L.Dense(4, name="shared")
    return keras.Model(inputs, L.Multiply()([shared(branch(inputs)), shared(block(inputs))]))


@family
def transfer() -> keras.Model:
    """A classifier upon a network, as most tutorials make it."""
    inputs = keras.Input(IMAGE)
    network = keras.Model(inputs, L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(inputs)), name="network")
    network.trainable = False
    return keras.Sequential([network, L.GlobalAveragePooling2D(), L.Dropout(0.2), L.Dense(3, "softmax")])


@family
def built_late() -> keras.Model:
    model = keras.Sequential([L.Dense(4, "relu"), L.BatchNormalization(), L.Dense(2)])
    model.build((None, 4))
    return model


@family
def deep_inside() -> keras.Model:
    block = keras.Sequential([L.Dense(3, activation="relu"), L.Dense(4)], name="per_step")
    return _chain(
        (5, 4), L.TimeDistributed(block), L.Bidirectional(L.RNN(L.GRUCell(3), return_sequences=True)), L.LSTM(2)
    )


@family
def multiple() -> keras.Model:
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((3,), name="right")}
    left, right = L.Dense(3, name="one")(inputs["left"]), L.Dense(3, name="other")(inputs["right"])
    joined = L.Dot(1)([left, right])
    return keras.Model(inputs, {"sum": L.Average(name="mean")([left, right]), "dot": joined})


@family
def two_outputs() -> keras.Model:
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    x = L.Subtract()([L.Dense(3, name="b")(first), L.Dense(3, name="a")(second)])
    return keras.Model([first, second], [L.Dense(2, name="z")(x), L.Dense(1, name="y")(x), L.Maximum()([x, x])])


@family
def operations() -> keras.Model:
    inputs = keras.Input((4, 6), name="x")
    x = L.Dense(6)(inputs)
    x = 2.0 * x + 1.0
    x = tf.nn.relu(x) - tf.sigmoid(x) / 3.0
    x = tf.concat([x, inputs], axis=-1)
    first, second = x[:, :, :6], x[:, 1:, ::2]
    x = tf.reduce_mean(first, axis=1, keepdims=True) + tf.transpose(tf.reshape(second, (-1, 6, 3)), perm=[0, 2, 1])
    x = tf.where(x > 0, x, tf.zeros_like(x) - 0.1 * x)
    x = tf.clip_by_value(x**2, 0.0, 3.0)
    x = tf.matmul(x, tf.expand_dims(first[:, 0], -1))
    x = tf.squeeze(x, axis=-1)
    left, right = tf.split(tf.stack([x, -x, tf.abs(x), tf.exp(-x)], axis=1), 2, axis=1)
    return keras.Model(
        inputs, 1.0 - tf.cast(tf.math.maximum(left, right), "float32") * tf.tile(tf.nn.softmax(left), [1, 1, 1])
    )


@family
def masks() -> keras.Model:
    """What becomes of masks on the way through functions and through layers that do not know them."""
    inputs = keras.Input((5,), dtype="int32", name="x")
    x = L.Embedding(9, 4, mask_zero=True)(inputs)
    through = L.LSTM(3)(tf.nn.relu(x) * 2.0)
    sliced = L.LSTM(3)(x[:, 1:])
    joined = L.GRU(3)(L.Concatenate()([x, L.Dense(4)(x)]))
    pooled = L.GlobalAveragePooling1D()(L.Dropout(0.5)(x))
    return keras.Model(inputs, [through, sliced, joined, pooled])


@family
def rescaling() -> keras.Model:
    model = keras.Sequential([L.Normalization(input_shape=(3,)), L.Rescaling(0.5, 0.1), L.Dense(2)])
    model.layers[0].adapt(np.random.default_rng(1).normal(2.0, 3.0, (50, 3)).astype("float32"))
    return model


@family
def categories() -> keras.Model:
    return _chain(
        (1,),
        L.IntegerLookup(vocabulary=[3, 5, 8]),
        L.CategoryEncoding(5, output_mode="multi_hot"),
        L.Dense(2),
        dtype="int64",
    )


@family
def bins() -> keras.Model:
    return _chain((3,), L.Discretization([-0.5, 0.0, 0.5]), L.Embedding(4, 2))


@family
def strings() -> keras.Model:
    return _chain(
        (1,), L.StringLookup(vocabulary=["a", "b", "c"]), L.Embedding(5, 3), L.Flatten(), L.Dense(2), dtype="string"
    )


@family
def strings_adapted() -> keras.Model:
    lookup = L.StringLookup()
    lookup.adapt(np.array(["a", "b", "b", "c", "c", "c"]))
    return _chain((1,), lookup, L.Embedding(5, 3), L.Flatten(), L.Dense(2), dtype="string")


@family
def text() -> keras.Model:
    layer = L.TextVectorization(output_sequence_length=4, vocabulary=["a", "b", "c"])
    return _chain((1,), layer, L.Embedding(6, 3, mask_zero=True), L.LSTM(2), dtype="string")


@family
def float16() -> keras.Model:
    policy = keras.mixed_precision.Policy("mixed_float16")
    return _chain(
        VECTOR, L.Dense(4, "relu", dtype=policy), L.BatchNormalization(dtype=policy), L.Dense(2, dtype="float32")
    )


@family
def frozen() -> keras.Model:
    model = keras.Sequential(
        [L.Dense(4, input_shape=VECTOR), L.BatchNormalization(), L.Dense(4), L.BatchNormalization()]
    )
    model.layers[1].trainable = model.layers[2].trainable = False
    return model


@family
def refused_layer() -> keras.Model:
    return _chain(VECTOR, L.Dense(4), L.ThresholdedReLU(0.05, name="threshold"))


@family
def refused_argument() -> keras.Model:
    return _chain(STEPS, L.GRU(4, time_major=True, name="by_time", return_sequences=True))


@family
def refused_operation() -> keras.Model:
    inputs = keras.Input(VECTOR, name="x")
    return keras.Model(inputs, tf.math.betainc(tf.sigmoid(L.Dense(2)(inputs)), 2.0, 3.0))


@family
def refused_code() -> keras.Model:
    return _chain(VECTOR, L.Dense(4), L.Lambda(lambda x: 2 * x, name="double"))


def _randomize(model: keras.Model, seed: int) -> None:
    """Weights and statistics far from fresh ones; integers and what was adapted or trained stay."""
    random = np.random.default_rng(seed)
    kept = {
        id(each) for layer in model._flatten_layers() if isinstance(layer, L.Normalization) for each in layer.weights
    }
    for weight in model.weights:
        dtype = getattr(weight, "dtype", tf.string)  # a table has none
        if dtype.is_floating and id(weight) not in kept:
            low = 0.5 if "variance" in weight.name or "gamma" in weight.name else -0.9
            weight.assign(random.uniform(low, 0.9 if low < 0 else 1.5, weight.shape))


def _inputs(spec: Any, random: np.random.Generator) -> np.ndarray:
    shape = (4, *(5 if size is None else size for size in spec.shape[1:]))
    if spec.dtype == tf.string:
        return random.choice(["a", "b", "c", "d"], shape)
    if spec.dtype.is_integer:
        return random.integers(0, 9, shape).astype(spec.dtype.as_numpy_dtype)
    values = random.normal(size=shape).astype("float32")
    if len(shape) == 3:
        values[0, 3:] = 0.0  # steps to be masked
    return values


def _leave_out_graphs(message: Message) -> None:
    """Leave out the graphs, which are for serving, but for the constants in which lookups have their words."""
    for graph in message.meta_graphs:
        constants = {node.constant.operation for node in graph.object_graph_def.nodes}
        kept = [node for node in graph.graph_def.node if node.op == "Const" and node.name in constants]
        graph.graph_def.Clear()
        graph.graph_def.node.extend(kept)
        graph.signature_def.clear()
        graph.collection_def.clear()
        graph.object_graph_def.concrete_functions.clear()


def write(name: str, folder: Path) -> None:
    """Make a model of a family, and write all that is kept of it."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = FAMILIES[name]()
    if not model.optimizer:
        _randomize(model, len(name))
    random = np.random.default_rng(7)
    inputs = {tensor.name: _inputs(tensor, random) for tensor in model.inputs}
    given: Any = inputs if isinstance(model.input, dict) else list(inputs.values())
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    outputs = tf.nest.flatten(model(tf.nest.map_structure(tf.constant, given), training=False))
    values = {f"output_{number}": np.asarray(each) for number, each in enumerate(outputs)}
    np.savez_compressed(folder / "model.npz", **{f"input_{key}": value for key, value in inputs.items()}, **values)
    model.save(folder / "model.keras")
    model.save(folder / "model", save_format="tf")
    (folder / "model.json").write_text(model.to_json())
    model.save_weights(folder / "model.weights.h5")
    try:
        model.save(folder / "model.h5")
    except NotImplementedError:  # Keras 2 cannot write what a table was adapted to into this kind of file
        (folder / "model.h5").unlink()
    path = folder / "model" / "saved_model.pb"
    message = SavedModel.FromString(path.read_bytes())
    _leave_out_graphs(message)
    path.write_bytes(message.SerializeToString(deterministic=True))


def pack(folder: Path, path: Path) -> None:
    """An archive of a folder's files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for each in sorted(each for each in folder.rglob("*") if each.is_file()):
            archive.writestr(zipfile.ZipInfo(str(each.relative_to(folder))), each.read_bytes(), zipfile.ZIP_DEFLATED)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            write(name, Path(folder))
            pack(Path(folder), FOLDER / f"{name}.zip")
        print(name)


if __name__ == "__main__":
    main()
