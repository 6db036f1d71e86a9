"""Files on disk: formats, reading models, writing without leaving halves. No TensorFlow until a model is read."""
