"""Bytes to readings, a whole batch at a time; one module per wire format."""
