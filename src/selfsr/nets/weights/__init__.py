"""Weights files: read, detect, load and save them."""

from selfsr.nets.weights.load import load_into, load_model, read_metadata
from selfsr.nets.weights.save import save_weights

__all__ = ["load_into", "load_model", "read_metadata", "save_weights"]
