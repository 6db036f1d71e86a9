"""The layers that kerasbn adds to Keras, and their conversion into Keras's own: the public door."""

from kerasbn.conversions import from_keras as from_keras
from kerasbn.conversions import to_keras as to_keras
from kerasbn.serializable import BatchNormalization as BatchNormalization
from kerasbn.serializable import BatchNormalizedRNN as BatchNormalizedRNN
