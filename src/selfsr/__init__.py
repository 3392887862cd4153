"""selfsr: train, run and judge image super-resolution models.

This package imports torch and nothing else; the trainer and the judge live in modules of their own
and come with `pip install "selfsr[train]"`.
"""

from selfsr.masks import edge_mask
from selfsr.pacing import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.selfsim import SelfSimilarityLoss, self_similarity_graph, self_similarity_loss

__all__ = [
    "SelfPacedLoss",
    "SelfSimilarityLoss",
    "edge_mask",
    "self_paced_weight",
    "self_similarity_graph",
    "self_similarity_loss",
    "ssim_map",
]

__version__ = "0.1.0"
