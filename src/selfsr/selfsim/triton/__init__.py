"""The Triton backend; imported only when it is chosen, since it imports Triton."""

from selfsr.selfsim.triton.backend import graph_backward, graph_sums, row_pass

__all__ = ["graph_backward", "graph_sums", "row_pass"]
