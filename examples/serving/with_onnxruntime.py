"""Serve an exported ONNX file: neither Keras, TensorFlow nor kerasbn is needed.

After `make demo`: python examples/serving/with_onnxruntime.py demo-output/digits.onnx demo-output/digits.npy
"""

import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
for example in np.load(sys.argv[2]):
    (scores,) = session.run(None, {name: example[np.newaxis]})
    print(scores.argmax(axis=-1)[0])
