"""Whether two models, or a model and a file, compute the same."""
