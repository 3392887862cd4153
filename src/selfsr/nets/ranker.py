"""RankSRGAN's ranker (Zhang et al., ICCV 2019): a VGG that gives an image the rank a perceptual metric would."""

from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets.discriminators.layers import SLOPE, Float32Linear

# Five stages of two convolutions each, and the width of the layer before the last.
_STAGES = 5
_HIDDEN = 100
# Each stage halves the image; one pixel must be left.
MINIMUM_PX = 2**_STAGES


class Ranker(nn.Module):
    """The published `Ranker_VGG12_296` by its names: the convolutions of a VGG discriminator, their mean, two linear layers.

    It always evaluates, whatever `train` is told: batch norm over the images of a step would give each a rank that
    depends on the others, and move the published statistics.

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
        self.classifier = nn.Sequential(hidden, nn.LeakyReLU(SLOPE, inplace=True), Float32Linear(_HIDDEN, 1))
        self.train(False)

    def train(self, mode: bool = True) -> "Ranker":  # noqa: ARG002 - a ranker is never trained here
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Rank `[N, C, H, W]` in [0, 1], 32 px or more a side: float32 `[N, 1]`, lower is better as the metric's is.

        Published for 296 px, and an average over positions at any size.
        """
        for stage in range(_STAGES):
            for layer in range(2):
                x = self.get_submodule(f"conv{stage}_{layer}")(x)
                if stage or layer:
                    x = self.get_submodule(f"bn{stage}_{layer}")(x)
                x = functional.leaky_relu(x, SLOPE, inplace=True)
        return self.classifier(x.mean((2, 3)))
