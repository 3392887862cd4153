"""The Triton backend; imported only when it is chosen, since it imports Triton."""

from selfsr.selfsim.triton.backend import loss_and_row_gradient, window_distances, window_distances_backward

__all__ = ["loss_and_row_gradient", "window_distances", "window_distances_backward"]
