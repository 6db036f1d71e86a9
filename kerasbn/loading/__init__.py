"""Read models from files of every kind that Keras has written, and refuse what a file smuggles in."""
