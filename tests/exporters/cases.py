"""Models to export, and how each format is run without kerasbn."""

import keras
import numpy as np
import onnx
import onnxruntime
import openvino
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from kerasbn.files.formats import format_of
from kerasbn.verification.interface import input_tensors, output_tensors
from tests.helpers import inference, random_inputs, randomize

FORMATS = {
    "onnx": "model.onnx",
    "saved_model": "model",
    "litert": "model.tflite",
    "openvino": "model.xml",
    "keras": "model.keras",
}


def _chain(*chain, shape=(8, 8, 4)):
    """A model with random weights: input `x`, these layers, a normalization, output `y`."""
    model = keras.Sequential([keras.Input(shape, name="x"), *chain, layers.BatchNormalization(name="y")])
    return randomize(model)


def _image_classifier():
    return _chain(
        *(layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()),
        *(layers.BatchNormalization(), layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")),
    )


def _gated():
    """Keras gets the shape of the output wrong."""
    return randomize(keras.Sequential([keras.Input((8,), name="x"), layers.Activation("glu", name="y")]))


def _tokens(steps, recurrent):
    inputs = keras.Input((steps,), dtype="int32", name="tokens")
    x = layers.Embedding(10, 6, mask_zero=True)(inputs)
    x = layers.LSTM(5, return_sequences=True)(x)
    x = recurrent(layers.BatchNormalization()(x))
    return randomize(keras.Model(inputs, layers.Dense(3, name="scores")(x)))


def _several():
    image, features = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="features")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    x = layers.Concatenate()([layers.BatchNormalization()(x), layers.Dense(6)(features)])
    return randomize(
        keras.Model([image, features], [layers.Dense(3, name="label")(x), layers.Dense(1, name="score")(x)])
    )


def _dicts():
    inputs = {"right": keras.Input((4,), name="right"), "left": keras.Input((3,), name="left")}
    left, right = layers.Dense(5)(inputs["left"]), layers.Dense(5)(inputs["right"])
    return randomize(keras.Model(inputs, {"sum": left + right, "difference": keras.ops.subtract(left, right)}))


def _dicts_of_nameless():
    inputs = {"right": keras.Input((3,)), "left": keras.Input((3,))}
    return randomize(keras.Model(inputs, {"out": layers.Dense(2)(inputs["left"] - inputs["right"])}))


def _normalized():
    """Statistics that the layer keeps outside its variables too."""
    layer = layers.Normalization()
    model = _chain(layer, layers.Dense(3), shape=(6,))
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, 6)))
    return model


def _random_layers():
    return _chain(
        *(layers.RandomFlip(), layers.RandomRotation(0.3), layers.RandomZoom(0.2), layers.RandomContrast(0.3)),
        *(layers.RandomTranslation(0.2, 0.2), layers.GaussianNoise(0.5), layers.Conv2D(4, 3), layers.Dropout(0.5)),
        *(layers.GaussianDropout(0.5), layers.SpatialDropout2D(0.5), layers.AlphaDropout(0.5), layers.Flatten()),
        shape=(8, 8, 3),
    )


def _dropout_in_training():
    inputs = keras.Input((6,), name="x")
    return randomize(keras.Model(inputs, layers.Dropout(0.5, name="y")(layers.Dense(5)(inputs), training=True)))


def _operations():
    inputs = keras.Input((6,), name="x")
    x = layers.Dense(6)(inputs)
    x = keras.ops.concatenate([keras.ops.relu(x) + inputs * 2.0, keras.ops.tanh(x)], axis=-1)
    x = keras.ops.mean(keras.ops.reshape(x, (-1, 3, 4)), axis=1)
    x = x / (1 + keras.ops.sum(keras.ops.square(x), axis=-1, keepdims=True))
    return randomize(keras.Model(inputs, layers.Dense(2, name="y")(x)))


def _fixed_batch():
    inputs = keras.Input(batch_shape=(4, 6), name="x")
    return randomize(keras.Model(inputs, layers.Dense(3, name="y")(layers.BatchNormalization()(inputs))))


def _any_size():
    inputs = keras.Input((None, None, 3), name="x")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", activation="relu")(inputs))
    outputs = [layers.Conv2D(2, 1, name="map")(x), layers.GlobalAveragePooling2D(name="pooled")(x)]
    return randomize(keras.Model(inputs, outputs))


def _called_twice():
    inputs = keras.Input((8, 8, 4), name="x")
    convolution, dense = layers.Conv2D(4, 3, padding="same"), layers.Dense(4)
    x = dense(keras.ops.relu(convolution(keras.ops.relu(convolution(inputs)))))
    return randomize(keras.Model(inputs, layers.Activation("tanh", name="y")(dense(x))))


def _nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="gelu"), layers.BatchNormalization()])
    inputs = keras.Input((6,), name="x")
    return randomize(keras.Model(inputs, layers.Dense(2, name="y")(inner(inner(inputs)))))


def _attention():
    inputs = keras.Input((6, 8), name="x")
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True)
    return randomize(keras.Model(inputs, layers.LayerNormalization(name="y")(x + inputs)))


def _input_among_outputs():
    inputs = keras.Input((6,), name="x")
    y = layers.Dense(2, name="y")(inputs)
    return randomize(keras.Model(inputs, [inputs, y, y]))


def _like_numbered():
    """Names such as a further output of one name gets."""
    inputs = keras.Input((4,), name="x")
    layer = layers.Dense(4, name="y")
    first = layer(inputs)
    second = layer(keras.ops.relu(layers.BatchNormalization()(first)))
    return randomize(keras.Model(inputs, [first, second, layers.Dense(2, name="y_1")(second), inputs]))


def _keys_like_numbered():
    inputs = keras.Input((4,), name="x")
    return randomize(keras.Model(inputs, {"x_1": layers.Dense(2)(layers.BatchNormalization()(inputs)), "x": inputs}))


def _nested_structures():
    a, b, c = (keras.Input((4,), name=name) for name in "abc")
    u = layers.BatchNormalization(name="u")(layers.Dense(4)(a + b))
    outputs = [
        {"u": u, "v": [layers.Dense(2, name="w")(u), layers.Multiply(name="m")([a, c])]},
        {"u": layers.Dense(2, name="t")(b - c)},
    ]
    return randomize(keras.Model([a, {"b": b, "others": [c]}], outputs))


def _images_of_bytes():
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="x")
    x = layers.Resizing(6, 6)(layers.Rescaling(1 / 255)(inputs))
    return randomize(keras.Model(inputs, layers.Conv2D(2, 3, name="y")(x)))


def _explicit_mask():
    inputs, mask = keras.Input((5, 6), name="x"), keras.Input((5,), dtype="bool", name="mask")
    return randomize(keras.Model([inputs, mask], layers.LSTM(3, activation="gelu", name="y")(inputs, mask=mask)))


def _odd_names():
    inputs = [keras.Input((6,), name=name) for name in ("in-put.1", "2x")]
    return randomize(keras.Model(inputs, {"out put": layers.Dense(2)(inputs[0] - inputs[1])}))


# How to build a model, the names of its inputs, of its outputs.
CASES = {
    "dense, dropout": (
        lambda: _chain(layers.Dense(16, activation="relu"), layers.Dropout(0.5), layers.Dense(3), shape=(6,)),
        *("x", "y"),
    ),
    "image classifier": (_image_classifier, "x", "y"),
    "gelu, celu": (lambda: _chain(layers.Dense(7, "gelu"), layers.Dense(7, "celu"), shape=(5,)), "x", "y"),
    "glu": (_gated, "x", "y"),
    "grouped convolution": (lambda: _chain(layers.Conv2D(8, 3, groups=2)), "x", "y"),
    "depthwise convolution": (lambda: _chain(layers.DepthwiseConv2D(3, depth_multiplier=2)), "x", "y"),
    "transposed convolution": (lambda: _chain(layers.Conv2DTranspose(6, 3, strides=2, padding="same")), "x", "y"),
    "separable convolution": (lambda: _chain(layers.SeparableConv2D(6, 3)), "x", "y"),
    "1D convolutions": (
        lambda: _chain(layers.Conv1D(6, 3, padding="causal"), layers.Conv1DTranspose(5, 3), shape=(9, 4)),
        *("x", "y"),
    ),
    "3D convolution": (lambda: _chain(layers.Conv3D(5, 3), shape=(5, 5, 5, 2)), "x", "y"),
    "PReLU": (lambda: _chain(layers.Conv2D(5, 3), layers.PReLU(), layers.PReLU(shared_axes=[1, 2])), "x", "y"),
    "masked LSTM": (lambda: _tokens(7, layers.LSTM(4)), "tokens", "scores"),
    "masked GRU, any length": (lambda: _tokens(None, layers.Bidirectional(layers.GRU(4))), "tokens", "scores"),
    "LSTM with Dropout": (
        lambda: _tokens(7, layers.Bidirectional(layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1))),
        *("tokens", "scores"),
    ),
    "explicit mask": (_explicit_mask, "x mask", "y"),
    "several inputs and outputs": (_several, "image features", "label score"),
    "dictionaries": (_dicts, "left right", "difference sum"),
    "dictionaries of nameless inputs": (_dicts_of_nameless, "left right", "out"),
    "adapted normalization": (_normalized, "x", "y"),
    "random layers": (_random_layers, "x", "y"),
    "dropout called in training mode": (_dropout_in_training, "x", "y"),
    "operations": (_operations, "x", "y"),
    "fixed batch": (_fixed_batch, "x", "y"),
    "any size": (_any_size, "x", "map pooled"),
    "layers called twice": (_called_twice, "x", "y"),
    "nested model called twice": (_nested, "x", "y"),
    "attention": (_attention, "x", "y"),
    "input among the outputs": (_input_among_outputs, "x", "x_1 y y_1"),
    "names like numbered ones": (_like_numbered, "x", "y y_2 y_1 x_1"),
    "keys like numbered ones": (_keys_like_numbered, "x", "x_2 x_1"),
    "nested structures": (_nested_structures, "a b c", "u w m u_1"),
    "images of bytes": (_images_of_bytes, "x", "y"),
    "odd names": (_odd_names, "in-put.1 2x", "out put,"),
}


def names_of(text):
    """The names in a column of the table: between commas, else between spaces."""
    return [name for name in text.split("," if "," in text else " ") if name]


def named(model, input_names, batch):
    """Random inputs in the model's structure, and the same by name."""
    inputs = random_inputs(model, batch, seed=batch)
    return inputs, dict(zip(input_names, keras.tree.flatten(inputs), strict=True))


def run_onnx(path, inputs):
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


def run_saved_model(path, inputs):
    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures["serving_default"](**{name: tf.constant(array) for name, array in inputs.items()})
    return {name: output.numpy() for name, output in outputs.items()}


def run_litert(path, inputs):
    return Interpreter(str(path)).get_signature_runner("serving_default")(**inputs)


def run_openvino(path, inputs):
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled(inputs)
    return {output.any_name: outputs[output] for output in compiled.outputs}


RUNNERS = {"onnx": run_onnx, "saved_model": run_saved_model, "litert": run_litert, "openvino": run_openvino}
"""How each serving format is run."""


def assert_serves(path, model, input_names, output_names, batches=(1, 2, 5)):
    """An exported file computes what the model computes, under these names."""
    for batch in batches:
        inputs, by_name = named(model, input_names, batch)
        expected = dict(zip(output_names, inference(model, inputs), strict=True))
        if path.suffix == ".keras":
            loaded = keras.models.load_model(path)
            assert (list(input_tensors(loaded)), list(output_tensors(loaded))) == (input_names, output_names)
            got = dict(zip(output_names, inference(loaded, inputs), strict=True))
        else:
            got = RUNNERS[format_of(path)](path, by_name)
        assert_close(expected, got)


def assert_close(expected, got, tolerance=1e-4):
    """Max |difference| of each output <= tolerance of max |output|."""
    assert sorted(expected) == sorted(got)
    for name, array in expected.items():
        assert array.shape == got[name].shape
        difference = np.max(np.abs(array.astype("float64") - got[name].astype("float64")))
        assert difference <= tolerance * np.max(np.abs(array))
