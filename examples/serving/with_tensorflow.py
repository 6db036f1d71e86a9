"""Serve an exported SavedModel with TensorFlow: neither Keras nor kerasbn is needed.

After `make demo`: python examples/serving/with_tensorflow.py demo-output/digits_saved_model demo-output/digits.npy
"""

import sys

import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])  # what it is loaded into must live as long as the signature
serve = model.signatures["serving_default"]
(name,) = serve.structured_input_signature[1]
for example in np.load(sys.argv[2]):
    (scores,) = serve(**{name: tf.constant(example[np.newaxis])}).values()
    print(scores.numpy().argmax(axis=-1)[0])
