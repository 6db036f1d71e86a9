"""The compiled state of a model: optimizer, schedules, loss and metrics."""
