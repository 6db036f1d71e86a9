"""The command `kerasbn-rewrite`."""
