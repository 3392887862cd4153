"""Mix training samples: mixup, CutMix, ResizeMix and CutBlur. The loader samples a mix, the device applies it.

A mix is determined by seed, step and place in the batch, as its partner is, which is a crop of its own. So it does not
depend on how a batch is split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from selfsr.images.resize import bicubic_lr, imresize
from selfsr.spec import Spec

MixKind = Literal["mixup", "cutmix", "resizemix", "cutblur"]
_Share = Annotated[float, Field(ge=0, le=1)]

# Both parameters of the beta distribution of the share of a sample in mixup.
_MIXUP_BETA = 1.2
# Side of the box over the side of the crop, sampled uniformly.
_BOX_SIDES: dict[str, tuple[float, float]] = {
    "cutmix": (0.2, 0.8),
    "resizemix": (0.2, 0.9),
    "cutblur": (0.2, 0.7),
}


class AugmentSpec(Spec):
    """Mixes of training samples, each with the share of the samples that it changes.

    Crops are always flipped and turned at random, to one of eight orientations. Mixes help on small data sets; leave
    them out to reproduce papers. Their parameters are those of docs/augmentations.md.
    """

    mixup: _Share = Field(
        0.0, description="share of samples that are blended with another crop; takes away contrast, so keep it small"
    )
    cutmix: _Share = Field(0.0, description="share of samples in which a box is replaced by another crop")
    resizemix: _Share = Field(0.0, description="share of samples in which another crop is pasted, made smaller")
    cutblur: _Share = Field(
        0.0,
        description="share of samples whose input is undegraded in a box or outside of it, so that the network learns "
        "where to do nothing; needs data.degrade or pairs",
    )

    @model_validator(mode="after")
    def _check_shares(self) -> "AugmentSpec":
        total = sum(self.shares.values())
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(
                f"the shares of mixup, cutmix, resizemix and cutblur must have a sum above 0 and up to 1, got {total:g}"
            )
        return self

    @property
    def shares(self) -> dict[MixKind, float]:
        """The share of each mix."""
        return {"mixup": self.mixup, "cutmix": self.cutmix, "resizemix": self.resizemix, "cutblur": self.cutblur}


@dataclass(frozen=True)
class Mix:
    """The change of one sample of a batch.

    Attributes:
        kind: the mix.
        place: the sample in the batch of this process.
        partner: the place of the other crop, after all samples; None for cutblur, which has none.
        share: share of the sample itself, for mixup.
        box: row, column and side of the square in pixels of LR, for the others.
        outside: whether cutblur changes the input outside of the box.
    """

    kind: MixKind
    place: int
    partner: int | None = None
    share: float = 1.0
    box: tuple[int, int, int] = (0, 0, 0)
    outside: bool = False

    def describe(self) -> str:
        """Return the mix and its parameter in a few words."""
        if self.kind == "mixup":
            return f"mixup, {self.share:.0%} and {1 - self.share:.0%}"
        return f"{self.kind} of {self.box[2]} px{' outside' if self.outside else ''}"


def sample_mix(spec: AugmentSpec, place: int, lr_px: int, rng: np.random.Generator) -> Mix | None:
    """Return the mix of a sample, without its partner; None if the sample stays as it is.

    Args:
        spec: the shares.
        place: the sample in the batch of this process.
        lr_px: side of the input, in pixels.
        rng: determines the result.
    """
    kinds = list(spec.shares)
    chosen = int(np.searchsorted(np.cumsum([spec.shares[kind] for kind in kinds]), rng.random(), side="right"))
    if chosen == len(kinds):
        return None
    kind = kinds[chosen]
    if kind == "mixup":
        return Mix(kind, place, share=float(rng.beta(_MIXUP_BETA, _MIXUP_BETA)))
    side = min(max(1, round(rng.uniform(*_BOX_SIDES[kind]) * lr_px)), lr_px)
    row, column = (int(rng.integers(lr_px - side + 1)) for _ in range(2))
    return Mix(kind, place, box=(row, column, side), outside=kind == "cutblur" and bool(rng.integers(2)))


def apply_mixes(hr: Tensor, lr: Tensor, mixes: Sequence[Mix], count: int) -> tuple[Tensor, Tensor]:
    """Apply the mixes of a batch.

    Args:
        hr: ground truths `[count + partners, C, H, W]` in [0, 1].
        lr: inputs `[count + partners, C, H / scale, W / scale]`.
        mixes: at most one for each sample.
        count: number of samples; the partners follow them.

    Returns:
        Both with the first `count` images, mixed. The arguments may be overwritten.
    """
    scale = hr.shape[-1] // lr.shape[-1]
    changed = [_mix(hr, lr, mix, scale) for mix in mixes]  # all from unchanged samples
    for mix, (mixed_hr, mixed_lr) in zip(mixes, changed, strict=True):
        hr[mix.place], lr[mix.place] = mixed_hr, mixed_lr
    return hr[:count], lr[:count]


def _mix(hr: Tensor, lr: Tensor, mix: Mix, scale: int) -> tuple[Tensor, Tensor]:
    """Return ground truth and input of one sample, `[C, H, W]`."""
    own_hr, own_lr = hr[mix.place].clone(), lr[mix.place].clone()
    if mix.kind == "cutblur":
        return own_hr, _cut_blur(own_hr, own_lr, mix, scale)
    assert mix.partner is not None
    other_hr, other_lr = hr[mix.partner], lr[mix.partner]
    if mix.kind == "mixup":
        return torch.lerp(other_hr, own_hr, mix.share), torch.lerp(other_lr, own_lr, mix.share)
    for own, other, factor in ((own_hr, other_hr, scale), (own_lr, other_lr, 1)):
        rows, columns, side = _slices(mix, factor)
        if mix.kind == "resizemix":
            own[:, rows, columns] = imresize(other[None], size=(side, side))[0].clamp(0, 1)
        else:
            own[:, rows, columns] = other[:, rows, columns]
    return own_hr, own_lr


def _cut_blur(hr: Tensor, lr: Tensor, mix: Mix, scale: int) -> Tensor:
    """Return the input with the bicubic one of the same ground truth in the box, or outside of it."""
    clean = hr if scale == 1 else bicubic_lr(hr[None], scale, bits=None)[0].clamp(0, 1)
    rows, columns, _ = _slices(mix, 1)
    source, target = (lr, clean.clone()) if mix.outside else (clean, lr)
    target[:, rows, columns] = source[:, rows, columns]
    return target


def _slices(mix: Mix, factor: int) -> tuple[slice, slice, int]:
    row, column, side = (value * factor for value in mix.box)
    return slice(row, row + side), slice(column, column + side), side
