"""The models that come with the package, found by name."""

from selfsr.models.shipped import ModelCard, choose_model, read_card, read_models
from selfsr.nets.weights.find import find_model

__all__ = ["ModelCard", "choose_model", "find_model", "read_card", "read_models"]
