"""What batch normalization sees: batches of data, their moments, calibration, percentiles."""
