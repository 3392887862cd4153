"""The compiled CPU backend (numba)."""

from selfsr.selfsim.cpu.backend import graph_backward, graph_sums, row_pass

__all__ = ["graph_backward", "graph_sums", "row_pass"]
