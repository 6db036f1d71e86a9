"""What the reproductions share: data, training, learning rates, intervals, reports."""
