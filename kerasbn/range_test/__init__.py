"""The range test for learning rates."""
