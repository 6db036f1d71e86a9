"""Keras models as immutable graphs of call sites, and back."""
