"""Weights files: read, loaded into a network, opened as a model, saved."""

from selfsr.nets.weights.load import load_into, load_model, read_metadata
from selfsr.nets.weights.save import save_weights

__all__ = ["load_into", "load_model", "read_metadata", "save_weights"]
