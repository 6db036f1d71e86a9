"""What passes ask about a graph: each fact is found in one place, and once."""
