"""Which rewrite is the best for a model on its data, and whether the seeds show it."""
