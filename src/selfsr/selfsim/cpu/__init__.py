"""The compiled CPU backend (numba)."""

from selfsr.selfsim.cpu.backend import loss_and_row_gradient, window_distances, window_distances_backward

__all__ = ["loss_and_row_gradient", "window_distances", "window_distances_backward"]
