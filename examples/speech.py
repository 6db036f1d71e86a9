"""Train a small Deep Speech 2 without and with batch normalization of its recurrent layers, then let it listen.

    python examples/speech.py

The clips are made here: tones that spell digits, at any pitch, pace and loudness, in noise. Convolutions
over their spectrogram go into LSTMs of both directions, and these into a CTC loss (Amodei et al., 2015).
`kerasbn.rewrite` normalizes the convolutions of both networks, and the LSTMs of one; they start from the
same weights and see the same batches. The file that is exported has plain LSTMs, and takes clips of any
length, any number at once.

Digits heard wrongly in 300 clips, one run each, without and with BN in the LSTMs: 7.7 % and 8.1 % after 300 steps,
6.8 % and 3.9 % after 500. More seeds, depths and rates are in docs/reproduce/speech.md.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from kerasbn.cli.quiet import keras_imported_quietly
from kerasbn.progress import shown

with keras_imported_quietly():
    import keras
    from keras import layers, ops

    import kerasbn

SAMPLES_PER_SECOND = 8000
WINDOW, HOP = 256, 100  # samples
BANDS = 24
UNITS = 32
FRAMES = 120  # what batches are padded to: no clip has more
MOST_DIGITS = 6
BATCH = 32
STEPS_BETWEEN_TESTS = 100
BLANK = 0  # the class of CTC that says nothing, and what labels are padded with; digit d is class d + 1

# A digit is two tones at once, which hold or glide: the hertz that each of them begins and ends at.
TONES = np.array(
    [
        [[350, 350], [1100, 1100]],
        [[350, 350], [1100, 1700]],
        [[350, 350], [1700, 1100]],
        [[350, 350], [1700, 1700]],
        [[350, 500], [1100, 1100]],
        [[350, 500], [1700, 1700]],
        [[500, 350], [1100, 1100]],
        [[500, 350], [1700, 1700]],
        [[500, 500], [1100, 1700]],
        [[500, 500], [1700, 1100]],
    ]
)


class Clips(NamedTuple):
    """Spectrograms, and the classes of the digits in them, both padded with zeros."""

    spectrograms: np.ndarray
    labels: np.ndarray


def spoken(digits: Iterable[int], generator: np.random.Generator) -> np.ndarray:
    """The samples of a clip: digits in noise, as someone of some pitch, pace and loudness says them."""
    pitch, pace, loudness = 2.0 ** generator.uniform((-0.35, -0.25, -2), (0.35, 0.25, 2))

    def silence() -> np.ndarray:
        return np.zeros(int(SAMPLES_PER_SECOND * generator.uniform(0.01, 0.06) / pace))

    pieces = [silence()]
    for digit in digits:
        along = np.linspace(0, 1, int(SAMPLES_PER_SECOND * generator.uniform(0.09, 0.14) / pace))
        begin, end = np.split(pitch * generator.uniform(0.96, 1.04, (2, 1)) * TONES[digit], 2, axis=1)
        cycles = np.cumsum(begin + (end - begin) * along, axis=1) / SAMPLES_PER_SECOND
        tones = np.sin(2 * np.pi * (cycles + generator.uniform(size=(2, 1))))
        pieces += [generator.uniform(0.4, 1, 2) @ tones * np.sqrt(np.sin(np.pi * along)), silence()]
    clip = np.concatenate(pieces)
    return loudness * (clip + generator.uniform(0.1, 1.2) * generator.normal(size=len(clip)))


def spectrogram(clip: np.ndarray) -> np.ndarray:
    """The logarithm of the power in each frame and band of the mel scale, `(frames, bands)`."""
    frames = np.lib.stride_tricks.sliding_window_view(clip, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    ends = np.log10(1 + np.array([100, SAMPLES_PER_SECOND / 2]) / 700)
    edges = 700 * (10 ** np.linspace(*ends, BANDS + 2) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / SAMPLES_PER_SECOND)[:, np.newaxis]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.log10(power @ np.clip(np.minimum(rising, falling), 0, None) + 1e-3).astype("float32")


def clips(count: int, seed: int) -> Clips:
    """So many clips of several digits each."""
    generator = np.random.default_rng(seed)
    spectrograms = np.zeros((count, FRAMES, BANDS), "float32")
    labels = np.full((count, MOST_DIGITS), BLANK, "int32")
    for padded, label in zip(spectrograms, labels, strict=True):
        digits = generator.integers(0, 10, generator.integers(3, MOST_DIGITS + 1))
        frames = spectrogram(spoken(digits, generator))
        padded[: len(frames)] = frames
        label[: len(digits)] = digits + 1
    return Clips(spectrograms, labels)


def network(depth: int, padded: bool = True) -> keras.Model:
    """Deep Speech 2's shape: convolutions over the spectrogram, recurrent layers in both directions, logits for CTC.

    Args:
        depth: The number of recurrent layers.
        padded: Whether clips are padded to one length, so that steps are to be masked. Else they are of any length,
            the same for all of a batch; masked LSTMs have no operator in ONNX.
    """
    frames = keras.Input((FRAMES if padded else None, BANDS), name="spectrogram")
    # Of what is padded the convolutions make the same everywhere, which counts in their BN; from there on it is masked.
    mask = ops.any(ops.not_equal(frames, 0), axis=-1)[:, ::2] if padded else None
    x = layers.Reshape((-1, BANDS, 1), name="image")(frames)
    x = layers.Conv2D(8, 5, strides=2, padding="same", activation="relu", name="conv1")(x)
    x = layers.Conv2D(16, 3, strides=(1, 2), padding="same", activation="relu", name="conv2")(x)
    x = layers.Reshape((-1, BANDS // 4 * 16), name="steps")(x)
    for number in range(1, depth + 1):
        lstm = layers.LSTM(UNITS, return_sequences=True)
        x = layers.Bidirectional(lstm, merge_mode="sum", name=f"lstm{number}")(x, mask=mask)
    logits = layers.Dense(11, name="digits")(x)
    if padded:  # the loss takes all steps, so those that are masked say nothing, surely
        logits = ops.where(ops.expand_dims(mask, -1), logits, 100.0 * ops.one_hot(BLANK, 11))
    return keras.Model(frames, logits, name="speech")


def transcribed(logits: np.ndarray) -> list[list[int]]:
    """The digits in each clip, decoded greedily: the best class of each step, repetitions and blanks left out."""
    heard = []
    for classes in np.argmax(logits, axis=-1):
        changes = classes[np.diff(classes, prepend=BLANK) != 0]
        heard.append([int(each) - 1 for each in changes if each != BLANK])
    return heard


def error_rate(logits: np.ndarray, labels: np.ndarray) -> float:
    """The edit distance of what is heard to what is said, over the number of digits said."""
    said = [[int(each) - 1 for each in label if each != BLANK] for label in labels]
    distances = sum(map(_edit_distance, said, transcribed(logits)))
    return distances / sum(map(len, said))


def _edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    row = list(range(len(other) + 1))
    for count, item in enumerate(one, 1):
        last, row[0] = row[0], count
        for place, each in enumerate(other, 1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (item != each))
    return row[-1]


def train(model: keras.Model, known: Clips, unknown: Clips, steps: int, name: str) -> dict[int, float]:
    """Train on clips, and say how often the digits of others are heard wrongly after some steps."""
    generator, errors = np.random.default_rng(0), {}
    for step in shown(range(1, steps + 1), f"Training {name}", steps):
        rows = generator.choice(len(known.labels), BATCH, replace=False)
        model.train_on_batch(known.spectrograms[rows], known.labels[rows])
        if step % STEPS_BETWEEN_TESTS == 0 or step == steps:
            logits = model.predict(unknown.spectrograms, verbose=0, batch_size=100)
            errors[step] = error_rate(logits, unknown.labels)
    return errors


def listen(path: Path, clip: np.ndarray) -> list[int]:
    """What ONNX Runtime hears in a clip."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"spectrogram": spectrogram(clip)[np.newaxis]})
    return transcribed(logits)[0]


@click.command(help=__doc__)
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="How many recurrent layers.")
@click.option("--steps", type=click.IntRange(1), default=500, show_default=True, help="Steps of training for each.")
@click.option("--rate", default=0.006, show_default=True, help="The learning rate.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
def main(depth: int, steps: int, rate: float, output: Path) -> None:
    known, unknown, outcomes = clips(2000, seed=0), clips(300, seed=1), {}
    keras.utils.set_random_seed(0)
    source = network(depth)
    for name, recurrent in {"without BN in the LSTMs": "none", "with it": "sequence_wise"}.items():
        trained = kerasbn.rewrite(source, recurrent=recurrent)
        # In so few steps XLA, which makes them faster, does not make up for the time that it compiles.
        trained.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), keras.losses.CTC(), jit_compile=False)
        outcomes[name] = train(trained, known, unknown, steps, name)
    table = Table("steps", *outcomes, title="Digits heard wrongly, %")
    for step in outcomes["with it"]:
        table.add_row(str(step), *(f"{100 * errors[step]:.1f}" for errors in outcomes.values()))
    Console().print(table)

    served = kerasbn.rewrite(network(depth, padded=False), recurrent="sequence_wise")
    served.set_weights(trained.get_weights())
    output.mkdir(exist_ok=True)
    report = kerasbn.export(served, output / "speech.onnx", overwrite=True)
    click.echo(f"{report.path}: {report.folded} batch normalizations folded, the same to {report.max_error:.0e}")
    digits = [3, 1, 4, 1, 5]
    heard = listen(report.path, spoken(digits, np.random.default_rng(0)))
    click.echo(f"said {' '.join(map(str, digits))}, heard {' '.join(map(str, heard)) or 'nothing'}")


if __name__ == "__main__":
    main()
