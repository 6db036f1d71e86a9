"""Every class of kerasbn's that a saved model may name. Importing this registers them all with Keras."""

from kerasbn.serializable.batch_normalization import BatchNormalization as BatchNormalization
from kerasbn.serializable.batch_normalized_rnn import BatchNormalizedRNN as BatchNormalizedRNN
from kerasbn.serializable.keras2_hard_sigmoid import keras2_hard_sigmoid as keras2_hard_sigmoid
from kerasbn.serializable.optimizers import weight_by_weight_class as weight_by_weight_class
from kerasbn.serializable.scaled_schedule import ScaledSchedule as ScaledSchedule
