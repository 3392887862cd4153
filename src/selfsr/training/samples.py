"""Sample images of a run: input, ground truth and bicubic once, the output at each evaluation."""

from pathlib import Path

from torch import Tensor

from selfsr.images.files import DecodedImage, tensor_to_pixels, write_image
from selfsr.images.resize import imresize
from selfsr.recipe import Recipe
from selfsr.step import Clock
from selfsr.terms.pace import Pace


class SampleWriter:
    """Write `samples/<set>-<image>/` for the first images of an evaluation, at one scale.

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

    def write(self, set_name: str, image_name: str, clock: Clock, lr: Tensor, sr: Tensor, hr: Tensor) -> None:
        """Write the files of one image, if it is among the first `evaluate.samples` images.

        Args:
            set_name: name of the evaluation set.
            image_name: name of the image.
            clock: time of the evaluation.
            lr: input `[1, C, h, w]` in [0, 1].
            sr: output `[1, C, s*h, s*w]` in [0, 1].
            hr: ground truth of the size of `sr`.
        """
        name = f"{set_name}-{image_name}"
        if name not in self._chosen:
            if len(self._chosen) == self.count:
                return
            self._chosen.append(name)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        lr, sr, hr = self._crop_center(lr, sr, hr)
        if not (folder / "hr.png").exists():
            _write(folder / "hr.png", hr)
            _write(folder / "lr.png", lr)
            _write(folder / "bicubic.png", imresize(lr, size=(hr.shape[2], hr.shape[3])))
        _write(folder / f"sr_{clock.step:08d}.png", sr)
        if self.pace is not None and clock.step > 0:
            weight = self.pace.weight(sr, hr, clock).mean(dim=1, keepdim=True)
            _write(folder / f"pixel_weights_{clock.step:08d}.png", weight / self.pace.peak)

    def _crop_center(self, lr: Tensor, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        side_px = self.side_px // self.scale
        top = max(0, (lr.shape[2] - side_px) // 2)
        left = max(0, (lr.shape[3] - side_px) // 2)

        def crop(image: Tensor, scale: int) -> Tensor:
            rows = slice(top * scale, (top + side_px) * scale)
            return image[:, :, rows, left * scale : (left + side_px) * scale]

        return crop(lr, 1), crop(sr, self.scale), crop(hr, self.scale)


def _write(path: Path, image: Tensor) -> None:
    write_image(path, DecodedImage(tensor_to_pixels(image[0])))
