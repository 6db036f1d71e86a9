"""Make the file of Keras 2 that a tutorial reads: a network for digits without batch normalization, trained a little.

pip install --target /tmp/keras2 --no-deps "tf_keras==2.21.*"
PYTHONPATH=/tmp/keras2 python tools/make_keras2_digits.py       # writes docs/tutorials/digits_keras2.h5
"""

from pathlib import Path

import tf_keras as keras
from sklearn.datasets import load_digits

PATH = Path(__file__).resolve().parent.parent / "docs" / "tutorials" / "digits_keras2.h5"


def main() -> None:
    keras.utils.set_random_seed(1)
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype("float32"), digits.target
    model = keras.Sequential(name="digits_2019")
    model.add(keras.layers.InputLayer((8, 8, 1), name="image"))
    for number in range(3):
        model.add(keras.layers.Conv2D(12, 3, padding="same", activation="relu", name=f"conv{number}"))
    model.add(keras.layers.GlobalAveragePooling2D(name="pool"))
    model.add(keras.layers.Dense(24, activation="relu", name="fc"))
    model.add(keras.layers.Dropout(0.3, name="drop"))
    model.add(keras.layers.Dense(10, activation="softmax", name="digit"))
    model.compile(keras.optimizers.legacy.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:1300], y[:1300], 32, 6, verbose=2)
    model.save(PATH)


if __name__ == "__main__":
    main()
