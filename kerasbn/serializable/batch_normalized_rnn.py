"""Sequence-wise batch normalization of recurrent layers.

    h_t = f(B(W x_t) + U h_{t-1} + b)

B normalizes the input product alone, over the batch and all steps at once, so that at inference it
is one affine map of each column of W: the layer is then the recurrent layer that it wraps, of other
weights, and can be made that one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import keras
from keras import ops

from kerasbn import _keras
from kerasbn.serializable._recurrences import RECURRENCES, input_products, recurrence, with_input_bias
from kerasbn.serializable.batch_normalization import MOMENTUM_WHERE_INSERTED, BatchNormalization

_LAYERS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN)
FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")
"""The arguments of `keras.layers.RNN` besides the cell."""
_ANY_LENGTH = 2**31 - 1
"""The most steps, where they are counted by the call: left to itself, Keras takes the batch's size for it."""


@keras.saving.register_keras_serializable(package="kerasbn")
class BatchNormalizedRNN(keras.layers.RNN):
    """A recurrent layer with batch normalization of its input products (Amodei et al., 2015).

    h_t = f(B(W x_t) + U h_{t-1} + b), where B takes its statistics over the batch and all of its
    steps, those that a mask leaves out aside. The state is not normalized. It is one matrix product
    for all steps, and Keras's loop over what is left of the cell.

    At inference B is an affine map of each column of W, so `kerasbn.fold` makes a trained layer the one
    that it wraps, which computes the same with other weights.

    Where it helps: deep recurrent networks. Deep Speech 2's word error rate is 9.52 with it and 10.83
    without for 7 recurrent layers, but 14.40 and 13.55 for one (Amodei et al., table 1). Laurent et
    al. (2016) find that training is faster, but generalization no better. Batches of few steps in all
    make poor statistics, as with batch normalization anywhere. To normalize U h_{t-1} as well
    (Cooijmans et al., 2017) is not offered: that takes statistics for each step apart, up to a length
    that is fixed in advance, and then no stock layer computes the same.

    On a CPU a training step takes about as long as the wrapped layer's if the model is compiled with
    `jit_compile=True`, and without up to 1.35 times as long (docs/benchmarks/recurrent.md). Where
    TensorFlow or JAX would run the wrapped layer in one cuDNN kernel on a GPU, this layer goes step by
    step, until `kerasbn.fold` makes it the wrapped layer again.

    Example:

    ```python
    model = keras.Sequential([
        keras.Input((None, 40)),
        keras.layers.Masking(),
        keras.layers.Bidirectional(kerasbn.layers.BatchNormalizedRNN(keras.layers.GRU(128, return_sequences=True))),
        keras.layers.Dense(29),
    ])
    ```

    Args:
        rnn_layer: A `keras.layers.LSTM`, `GRU` or `SimpleRNN`, or a `keras.layers.RNN` of one of their
            cells or of several. Of a stack, which computes what as many layers would one after
            another, each cell's input product is normalized. The layer's cell becomes this layer's.
        norm: A batch normalization over the last axis, `keras.layers.BatchNormalization` or kerasbn's,
            whose configuration that of each cell gets, or a list of one for each cell. Defaults to
            `None`: kerasbn's with `momentum=0.95` and `zero_debias=True`, and without `beta` where the
            cell has a bias, which does the same.
        **kwargs: Arguments of `keras.layers.RNN` besides the cell, such as `go_backwards` and `name`.
            Those not given are the wrapped layer's.

    Weights:
        Those of the wrapped layer, of the same names and shapes, and of a normalization for each cell.

    Attributes:
        rnn_layer: The wrapped layer, whose cell this one's is. How sequences are gone along is this one's to say.
        norms: The normalization of each cell.

    Call arguments:
        sequences: Floats, `(batch, steps, features)`.
        initial_state: The states to start from, as for the wrapped layer.
        mask: Booleans, `(batch, steps)`: the steps that count, in the statistics as well.
        training: Whether to normalize with the statistics of the batch, and to drop what the
            wrapped layer's `dropout` and `recurrent_dropout` say.

    Input shape:
        `(batch, steps, features)`

    Output shape:
        That of the wrapped layer.

    Raises:
        ValueError: if the wrapped layer is of another class, as convolutional ones are, or has a cell
            of another class; or if `norm` is no such normalization.

    Reference:

    - [Amodei et al., 2015](https://arxiv.org/abs/1512.02595), Deep Speech 2, section 3.2.
    - [Laurent et al., 2016](https://arxiv.org/abs/1510.01378), Batch Normalized Recurrent Neural Networks.
    - [Cooijmans et al., 2017](https://arxiv.org/abs/1603.09025), Recurrent Batch Normalization.
    """

    def __init__(
        self,
        rnn_layer: keras.layers.RNN,
        norm: keras.layers.BatchNormalization | Sequence[keras.layers.BatchNormalization] | None = None,
        **kwargs: Any,
    ) -> None:
        check_layer(rnn_layer)
        arguments = {
            **{name: getattr(rnn_layer, name) for name in FLAGS},
            "trainable": rnn_layer.trainable,
            "dtype": rnn_layer.dtype_policy,
            "activity_regularizer": rnn_layer.activity_regularizer,
            **kwargs,
        }
        super().__init__(rnn_layer.cell, **arguments)
        self.input_spec = rnn_layer.input_spec
        self.norms = _norms(norm, cells_of(rnn_layer), self.dtype_policy)
        self.rnn_layer = rnn_layer
        for each in self.norms:  # a frozen one keeps to its moving statistics
            each.trainable = each.trainable and self.trainable

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Make the weights."""
        super().build(sequences_shape)
        self.rnn_layer.built = True  # its cell is; states of its own it has none
        for cell, norm in zip(cells_of(self), self.norms, strict=True):
            norm.build((None, None, cell.kernel.shape[-1]))

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False) -> Any:
        """Go along the steps, for one cell after another: the steps that are masked leave all states alone."""
        outputs, mask = _steps_first(sequences), None if mask is None else _steps_first(keras.tree.flatten(mask)[0])
        if self.go_backwards:
            outputs, mask = ops.flip(outputs, axis=0), None if mask is None else ops.flip(mask, axis=0)
        stacked = isinstance(self.cell, keras.layers.StackedRNNCells)
        cells, last_output, states = cells_of(self), None, []
        for cell, norm, state in zip(cells, self.norms, initial_state if stacked else [initial_state], strict=True):
            flat = keras.tree.flatten(state)
            if self.stateful:  # torch would find them changed in the backward pass
                flat = [ops.copy(each) for each in flat]
            products = _normalized(norm, input_products(cell, outputs, training), mask, training)
            last_output, outputs, flat = _keras.rnn(
                recurrence(cell, flat[0], training),
                with_input_bias(cell, products),
                flat,
                mask=mask,
                unroll=self.unroll,
                input_length=outputs.shape[0] or _ANY_LENGTH,
                time_major=True,
                zero_output_for_mask=self.zero_output_for_mask,
                return_all_outputs=self.return_sequences or cell is not cells[-1],
            )
            states.append(keras.tree.pack_sequence_as(state, list(flat)))
        return last_output, _steps_first(outputs), states if stacked else states[0]

    def quantize(self, mode: Any = None, **kwargs: Any) -> NoReturn:
        """Not to be done."""
        raise NotImplementedError(
            f"Layer {self.name!r} (BatchNormalizedRNN) cannot be quantized. Fold it into the layer that it wraps, "
            "which Keras may know how to quantize."
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = super().get_config()
        del config["cell"]
        norms = [keras.saving.serialize_keras_object(norm) for norm in self.norms]
        return {
            **config,
            "rnn_layer": keras.saving.serialize_keras_object(self.rnn_layer),
            "norm": norms if len(norms) > 1 else norms[0],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> BatchNormalizedRNN:
        """The layer that a configuration describes."""
        inner = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("rnn_layer", "norm")
        }
        return cls(**{**config, **inner})


def _steps_first(tensor: Any) -> Any:
    """`(batch, steps, ...)` as `(steps, batch, ...)`, or back."""
    return ops.swapaxes(tensor, 0, 1)


def _normalized(norm: keras.layers.BatchNormalization, products: Any, mask: Any, training: bool | None) -> Any:
    """Products normalized over batch and steps. Ghost batches are of examples, which then come first."""
    if getattr(norm, "virtual_batch_size", None) is None:
        return norm(products, training=training, mask=mask)
    mask = None if mask is None else _steps_first(mask)
    return _steps_first(norm(_steps_first(products), training=training, mask=mask))


def cells_of(layer: keras.layers.RNN) -> list[Any]:
    """The cell of a recurrent layer, or those that are stacked in it."""
    cell = layer.cell
    return list(cell.cells) if isinstance(cell, keras.layers.StackedRNNCells) else [cell]


def check_layer(layer: Any) -> None:
    """Refuse a layer that cannot be normalized.

    Raises:
        ValueError: for a layer of another class, or with a cell of another class.
    """
    if type(layer) is keras.layers.Bidirectional:
        raise ValueError(
            "Argument `rnn_layer` cannot be a Bidirectional layer; put the BatchNormalizedRNN inside: "
            f"Bidirectional(BatchNormalizedRNN({type(layer.forward_layer).__name__}(...))). Received: rnn_layer={layer}"
        )
    if type(layer) not in _LAYERS:
        raise ValueError(
            "Argument `rnn_layer` must be a keras.layers.LSTM, GRU or SimpleRNN, or a keras.layers.RNN of their cells: "
            f"no input product is known of another class. Received: rnn_layer={layer}"
        )
    for cell in cells_of(layer):
        if type(cell) not in RECURRENCES:
            raise ValueError(
                "Argument `rnn_layer` must have an LSTMCell, a GRUCell or a SimpleRNNCell of Keras's, or several: no "
                f"input product is known of another class. Received: a {type(cell).__name__} in rnn_layer={layer}"
            )


def _norms(given: Any, cells: Sequence[Any], dtype: Any) -> list[keras.layers.BatchNormalization]:
    """A normalization for each cell, named for it."""
    of_cells = list(given) if isinstance(given, list | tuple) else [given] * len(cells)
    if len(of_cells) != len(cells):
        raise ValueError(
            f"Argument `norm` must have one normalization for each cell, which are {len(cells)}. Received: norm={given}"
        )
    made = []
    for norm, cell in zip(of_cells, cells, strict=True):
        if norm is None:
            norm = BatchNormalization(
                momentum=MOMENTUM_WHERE_INSERTED, zero_debias=True, center=not cell.use_bias, dtype=dtype
            )
        elif not isinstance(norm, keras.layers.BatchNormalization) or norm.axis not in (-1, 2):
            raise ValueError(
                "Argument `norm` must be a batch normalization over the last axis, such as "
                f"keras.layers.BatchNormalization(), or None. Received: norm={norm}, axis="
                f"{getattr(norm, 'axis', None)}"
            )
        made.append(type(norm).from_config({**norm.get_config(), "name": f"{cell.name}_bn"}))
    return made
