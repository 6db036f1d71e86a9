"""Folding: the algebra, the layers that absorb it, what it passes through, and the search."""
