"""Self-paced pixel weighting (PSPL, ICASSP 2020) as a PyTorch operator."""

from selfsr.pacing.loss import SelfPacedLoss, self_paced_weight, ssim_map

__all__ = ["SelfPacedLoss", "self_paced_weight", "ssim_map"]
