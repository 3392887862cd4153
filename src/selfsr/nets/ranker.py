"""RankSRGAN's ranker (Zhang et al., ICCV 2019): a VGG that ranks images as a perceptual metric does."""

from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets.discriminators.layers import SLOPE, Float32Linear

# Number of stages of two convolutions each, and the width of the last layer but one.
_STAGES = 5
_HIDDEN = 100
# Each stage halves the image; one pixel must remain.
MINIMUM_PX = 2**_STAGES


class Ranker(nn.Module):
    """The published `Ranker_VGG12_296` under its names: the convolutions of a VGG, a mean, two linear layers.

    It stays in evaluation mode, also after `train()`. In training mode, batch norm would make the rank of an image
    depend on the other images of the batch, and would change the published statistics.

    Args:
        channels: of the image.
        features: channels of the first stage; they double from stage to stage up to eight times that.
    """

    def __init__(self, channels: int = 3, *, features: int = 64) -> None:
        super().__init__()
        self.channels = channels
        inputs = channels
        for stage in range(_STAGES):
            width = features * min(2**stage, 8)
            self.add_module(f"conv{stage}_0", nn.Conv2d(inputs, width, 3, 1, 1))
            if stage:
                self.add_module(f"bn{stage}_0", nn.BatchNorm2d(width))
            self.add_module(f"conv{stage}_1", nn.Conv2d(width, width, 4, 2, 1))
            self.add_module(f"bn{stage}_1", nn.BatchNorm2d(width))
            inputs = width
        hidden = nn.Linear(inputs, _HIDDEN)
        self.classifier: nn.Sequential = nn.Sequential(
            hidden, nn.LeakyReLU(SLOPE, inplace=True), Float32Linear(_HIDDEN, 1)
        )
        self.train(False)

    def train(self, mode: bool = True) -> "Ranker":  # noqa: ARG002 - a ranker is never trained here
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Rank images; lower is better, as for the metric that it imitates.

        Args:
            x: `[N, C, H, W]` in [0, 1], at least 32 px a side. Published for 296 px; the mean over positions accepts
                any size.

        Returns:
            Float32 `[N, 1]`.
        """
        for stage in range(_STAGES):
            for layer in range(2):
                x = self.get_submodule(f"conv{stage}_{layer}")(x)
                if stage or layer:
                    x = self.get_submodule(f"bn{stage}_{layer}")(x)
                x = functional.leaky_relu(x, SLOPE, inplace=True)
        return self.classifier(x.mean((2, 3)))
