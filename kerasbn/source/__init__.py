"""A model to be rewritten: read or traced into a graph, and built again with all that comes along."""
