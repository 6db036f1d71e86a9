"""Model files that are bad in every way that could be thought of, and what is made of them."""
