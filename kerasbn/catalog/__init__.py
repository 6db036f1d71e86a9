"""What Keras's layers and operations mean to batch normalization."""
