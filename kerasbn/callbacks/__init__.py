"""What `fit` can be given: `keras.callbacks.Callback`s. The public door."""

from kerasbn.callbacks.calibrate import Calibrate as Calibrate
from kerasbn.callbacks.find_learning_rate import FindLearningRate as FindLearningRate
from kerasbn.callbacks.input_percentiles import InputPercentiles as InputPercentiles
