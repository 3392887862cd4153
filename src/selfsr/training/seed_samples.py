"""What is random in the outputs of a run: samples of several seeds, their standard deviation, the stages of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.images.color import rgb_to_luma
from selfsr.images.files import DecodedImage, tensor_to_pixels, write_image
from selfsr.masks import edge_mask
from selfsr.nets.diffusion.sampled import SampledNetwork
from selfsr.nets.diffusion.sampling import keep_sampling, set_sampling
from selfsr.nets.weights.model import upscale_any_channels
from selfsr.runfolder.read import SEED_STD_PEAK

STAGE_PX = 96
_LEAST_SEEDS = 3
_PLACES_PX = 8


@dataclass(frozen=True)
class SeedSampleWriter:
    """Write what is random in the output for a sample image, next to the output itself.

    * `sr_<step>_seed<seed>.png`: the sample of each seed
    * `seed_std_<step>.png`: the standard deviation of each pixel over the seeds, the mean over its channels; gray,
      white is `SEED_STD_PEAK`. Missing with one seed.
    * `stages_<step>.png`: the square with the most edges, at most `STAGE_PX` wide, in each stage of sampling with the
      first seed: x_T, ..., x_0, and at last in the ground truth, from left to right

    The folder keeps these files of the newest evaluation only.

    Attributes:
        architecture: name of the network, for error messages.
        channels: channels of its images, 1 or 3.
        seeds: seeds of the samples.
    """

    architecture: str
    channels: int
    seeds: Sequence[int]

    @torch.inference_mode()
    def write(
        self, net: SampledNetwork, folder: Path, step: int, lr: Tensor, hr: Tensor, crop: Callable[[Tensor], Tensor]
    ) -> None:
        """Sample a complete image with each seed, and write the files.

        Args:
            net: the network, in eval mode; afterwards it samples as before.
            folder: folder of the sample image.
            step: optimizer step.
            lr: input `[1, C, h, w]` in [0, 1], on any device.
            hr: ground truth `[1, C, s*h, s*w]`.
            crop: cuts out of an image of that size what the files show.
        """
        device = next(net.parameters()).device
        truth, stages, samples = crop(hr), [], []
        square = _find_square(truth)

        def keep_stage(_: int, image: Tensor) -> None:
            stages.append(_cut(crop(image[..., : hr.shape[2], : hr.shape[3]]), square).clamp(0, 1).cpu())

        with keep_sampling(net):
            for seed in self.seeds:
                set_sampling(net, seed=seed)
                on_stage = None if stages else keep_stage
                sr = upscale_any_channels(
                    lambda image, on_stage=on_stage: net.sample(image, on_stage),
                    lr.to(device),
                    channels=self.channels,
                    scale=net.scale,
                    architecture=self.architecture,
                )
                samples.append(crop(sr.float().clamp(0, 1)).cpu())
                _write(folder / f"sr_{step:08d}_seed{seed}.png", samples[-1])
        if len(samples) > 1:
            std = torch.cat(samples).std(dim=0, keepdim=True).mean(dim=1, keepdim=True)
            _write(folder / f"seed_std_{step:08d}.png", std / SEED_STD_PEAK)
        end = _cut(truth, square).cpu()
        end = rgb_to_luma(end) if self.channels == 1 else end
        _write(folder / f"stages_{step:08d}.png", torch.cat([*stages, end], dim=3))
        for pattern in ("sr_*_seed*.png", "seed_std_*.png", "stages_*.png"):
            for path in folder.glob(pattern):
                if f"_{step:08d}" not in path.name:
                    path.unlink()


def choose_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of the samples: those of the evaluation, or if these are one, also the next two.

    Example:
        >>> choose_seeds([0]), choose_seeds([4, 1])
        ((0, 1, 2), (4, 1))
    """
    return tuple(range(seeds[0], seeds[0] + _LEAST_SEEDS)) if len(seeds) == 1 else tuple(seeds)


def _find_square(hr: Tensor) -> tuple[int, int, int]:
    """Return row, column and side of the square with the most edges."""
    side = min(STAGE_PX, *hr.shape[2:])
    shares = functional.avg_pool2d(edge_mask(hr).float(), side, stride=_PLACES_PX)[0, 0]
    row, column = divmod(int(shares.argmax()), shares.shape[1])
    return row * _PLACES_PX, column * _PLACES_PX, side


def _cut(image: Tensor, square: tuple[int, int, int]) -> Tensor:
    top, left, side = square
    return image[..., top : top + side, left : left + side]


def _write(path: Path, image: Tensor) -> None:
    write_image(path, DecodedImage(tensor_to_pixels(image[0])))
