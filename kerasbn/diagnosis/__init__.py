"""What is wrong with the batch normalization of a model, and what to do about it."""
