"""selfsr: train, run and evaluate image super-resolution models.

`import selfsr` needs torch only: it has the two losses, the edge mask, the error and the warning class. `selfsr.losses`
has the losses of other papers. Training, evaluation and upscaling are in further modules, which need
`pip install "selfsr[train]"`.
"""

from typing import TYPE_CHECKING

from selfsr.errors import InputError, RangeWarning
from selfsr.masks import edge_mask
from selfsr.pacing import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.selfsim import SelfSimilarityLoss, self_similarity_graph, self_similarity_loss

__all__ = [
    "InputError",
    "RangeWarning",
    "SelfPacedLoss",
    "SelfSimilarityLoss",
    "edge_mask",
    "self_paced_weight",
    "self_similarity_graph",
    "self_similarity_loss",
    "ssim_map",
]

__version__: str

# Hidden from type checkers: with a module's __getattr__ they would accept any attribute.
if not TYPE_CHECKING:
    from selfsr._version import __getattr__ as __getattr__
