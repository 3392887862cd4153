"""The self-similarity loss (SSL, ACM MM 2024) as an operator of torch."""

from selfsr.selfsim.loss import SelfSimilarityLoss, self_similarity_graph, self_similarity_loss

__all__ = ["SelfSimilarityLoss", "self_similarity_graph", "self_similarity_loss"]
