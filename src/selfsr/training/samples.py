"""Sample images of a run: input, ground truth and bicubic once, the output at each evaluation."""

from pathlib import Path

from torch import Tensor

from selfsr.images.files import DecodedImage, tensor_to_pixels, write_image
from selfsr.images.resize import imresize
from selfsr.recipe import Recipe
from selfsr.step import Clock
from selfsr.terms.pace import Pace


class SampleWriter:
    """Write `samples/<set>/<image>/` for the first images of an evaluation, at one scale.

    If a term has self-paced weighting, a map of its pixel weights is written next to each output.

    Args:
        recipe: has `evaluate`.
        folder: the run folder.
        scale: scale of the images.
    """

    def __init__(self, recipe: Recipe, folder: Path, scale: int) -> None:
        assert recipe.evaluate is not None
        self.folder: Path = folder / "samples"
        self.count: int = recipe.evaluate.samples
        self.scale = scale
        self.side_px: int = recipe.evaluate.sample_px
        paces = [getattr(term, "pace", None) for term in recipe.method.terms.values()]
        self.pace: Pace | None = next((pace for pace in paces if pace is not None), None)
        self._chosen: list[str] = []

    def write(self, set_name: str, image_name: str, clock: Clock, lr: Tensor, sr: Tensor, hr: Tensor) -> Path | None:
        """Write the files of one image, if it is among the first `evaluate.samples` images.

        Args:
            set_name: name of the evaluation set.
            image_name: name of the image.
            clock: time of the evaluation.
            lr: input `[1, C, h, w]` in [0, 1].
            sr: output `[1, C, s*h, s*w]` in [0, 1].
            hr: ground truth of the size of `sr`.

        Returns:
            The folder of the image; None if it is not among the first ones.
        """
        name = f"{set_name}/{image_name}"  # no set has "/" in its name
        if name not in self._chosen:
            if len(self._chosen) == self.count:
                return None
            self._chosen.append(name)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        lr, sr, hr = self.crop_center(lr, 1), self.crop_center(sr), self.crop_center(hr)
        if not (folder / "hr.png").exists():
            _write(folder / "hr.png", hr)
            _write(folder / "lr.png", lr)
            _write(folder / "bicubic.png", imresize(lr, size=(hr.shape[2], hr.shape[3])))
        _write(folder / f"sr_{clock.step:08d}.png", sr)
        if self.pace is not None and clock.step > 0:
            weight = self.pace.weight(sr, hr, clock).mean(dim=1, keepdim=True)
            _write(folder / f"pixel_weights_{clock.step:08d}.png", weight / self.pace.peak)
        return folder

    def crop_center(self, image: Tensor, scale: int | None = None) -> Tensor:
        """Return the part of an image that the files show.

        Args:
            image: `[1, C, H, W]`.
            scale: side of the image over that of the input; None takes that of the output.
        """
        scale = self.scale if scale is None else scale
        side_px = self.side_px // self.scale
        top, left = (max(0, (length // scale - side_px) // 2) * scale for length in image.shape[2:])
        return image[:, :, top : top + side_px * scale, left : left + side_px * scale]


def _write(path: Path, image: Tensor) -> None:
    write_image(path, DecodedImage(tensor_to_pixels(image[0])))
