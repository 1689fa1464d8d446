"""Numeric loops: numpy and numba only, no classes, no state."""
