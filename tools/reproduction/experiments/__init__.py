"""One module for each claim: its docstring states it, and `run` tries it."""
