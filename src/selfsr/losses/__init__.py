"""Loss functions of super-resolution papers; each module names its paper. They need torch only."""

from selfsr.losses.adversarial import discriminator_losses, generator_loss, gradient_penalty, r1_penalty
from selfsr.losses.artifact import artifact_loss, artifact_map
from selfsr.losses.best_buddy import back_projection_loss, best_buddy_loss, flat_mask
from selfsr.losses.checkerboard import checkerboard_loss
from selfsr.losses.dists import DistsLoss
from selfsr.losses.edge import edge_l1_loss
from selfsr.losses.frequency import focal_frequency_loss
from selfsr.losses.gradient import gradient_branch_loss, gradient_loss, gradient_map
from selfsr.losses.lpips import LpipsLoss
from selfsr.losses.perceptual import PerceptualLoss
from selfsr.losses.pixel import charbonnier, l1, l2
from selfsr.losses.ranking import rank_loss
from selfsr.losses.structural import ms_ssim_loss, ssim_loss
from selfsr.losses.variation import total_variation

__all__ = [
    "DistsLoss",
    "LpipsLoss",
    "PerceptualLoss",
    "artifact_loss",
    "artifact_map",
    "back_projection_loss",
    "best_buddy_loss",
    "charbonnier",
    "checkerboard_loss",
    "discriminator_losses",
    "edge_l1_loss",
    "flat_mask",
    "focal_frequency_loss",
    "generator_loss",
    "gradient_branch_loss",
    "gradient_loss",
    "gradient_map",
    "gradient_penalty",
    "l1",
    "l2",
    "ms_ssim_loss",
    "r1_penalty",
    "rank_loss",
    "ssim_loss",
    "total_variation",
]
