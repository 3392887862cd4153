"""The portable backend (plain torch)."""

from selfsr.selfsim.eager.backend import window_distances, window_distances_backward
from selfsr.selfsim.eager.rows import loss_and_row_gradient

__all__ = ["loss_and_row_gradient", "window_distances", "window_distances_backward"]
