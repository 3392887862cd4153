"""TAEF2, the tiny autoencoder of FLUX.2 (Bohan, 2025): images in [0, 1] to 32 channels at 1/8 and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CHANNELS, DOWNSCALE = 32, 8
# Standard deviation of its latents over photographs is about 0.8; divided by it, they have the variance that the
# diffusion process expects.
SCALE = 1.25
_WIDTH, _POOL_GROUPS = 64, 4


class _Block(nn.Module):
    """Three convolutions with a skip; with `pool`, a branch with group norm over the complete image is added first."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(_WIDTH, _WIDTH)]
        for _ in range(2):
            layers += [nn.ReLU(), _conv(_WIDTH, _WIDTH)]
        self.conv = nn.Sequential(*layers)
        wide = _POOL_GROUPS * _WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(_WIDTH, wide, 1, bias=False),
                nn.GroupNorm(_POOL_GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, _WIDTH, 1, bias=False),
            )
            if pool
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _SoftClamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class Taef2(nn.Module):
    """The encoder and the decoder; sides are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        encoder: list[nn.Module] = [_conv(3, _WIDTH), _Block(False)]
        for level in range(3):
            encoder += [_conv(_WIDTH, _WIDTH, stride=2, bias=False), *(_Block(level == 2) for _ in range(3))]
        self.encoder = nn.Sequential(*encoder, _conv(_WIDTH, CHANNELS))
        decoder: list[nn.Module] = [_SoftClamp(), _conv(CHANNELS, _WIDTH), nn.ReLU()]
        for level in range(3):
            decoder += [*(_Block(level == 0) for _ in range(3)), nn.Upsample(scale_factor=2)]
            decoder += [_conv(_WIDTH, _WIDTH, bias=False)]
        self.decoder = nn.Sequential(*decoder, _Block(False), _conv(_WIDTH, 3))

    def load_parts(self, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> None:
        """Load the two published files.

        Raises:
            ValueError: the tensors are not those of TAEF2.
        """
        for part, tensors in ((self.encoder, encoder), (self.decoder, decoder)):
            own = part.state_dict()
            wrong = sorted({*own} ^ {*tensors}) or [n for n, t in own.items() if t.shape != tensors[n].shape]
            if wrong:
                raise ValueError(f"tensors that are not TAEF2's, such as {wrong[0]}")
            part.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def _conv(channels: int, out_channels: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=bias)
