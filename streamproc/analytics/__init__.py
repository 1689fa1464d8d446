"""The reading side: open a dataset, merge parts, verify a root."""
