"""Metrics by the protocol of the literature, and the evaluation of a model on sets of images."""
