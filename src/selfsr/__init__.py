"""selfsr: train, run and judge image super-resolution models.

This package imports torch and nothing else; the trainer and the judge live in modules of their own
and come with `pip install "selfsr[train]"`.
"""

from selfsr.masks import edge_mask
from selfsr.selfsim import SelfSimilarityLoss, self_similarity_graph, self_similarity_loss

__all__ = ["SelfSimilarityLoss", "edge_mask", "self_similarity_graph", "self_similarity_loss"]

__version__ = "0.1.0"
