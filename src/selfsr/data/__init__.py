"""Data: files to batches, and high to low resolution."""
