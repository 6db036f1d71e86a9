"""Merging: what parallel linear branches compute together, the search for them, and the layer that does it alone."""
