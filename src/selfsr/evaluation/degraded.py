"""Make the inputs of an evaluation by a degradation, such as the degradation of the training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.files import check_degradable, prepare_hr, sample_lr
from selfsr.degrade.jpeg import to_uint8
from selfsr.degrade.presets import disable_opencv_threads
from selfsr.images.files import DecodedImage, image_to_tensor, read_header


@dataclass(frozen=True)
class DegradedInputs:
    """Makes the LR image of each HR image of a folder by a degradation.

    The random numbers follow from the seed and from the path of the image below the folder. The
    result does not depend on other images, their order, the process or the step. It equals the output of
    `selfsr degrade FOLDER --seed SEED`.

    Attributes:
        degradation: the distribution of blur, noise and other steps.
        folder: the folder of the HR images; for a list of images, the one that all share.
        seed: the seed of all images.
    """

    degradation: PresetSpec
    folder: Path
    seed: int

    def make(self, source: DecodedImage, path: Path, scale: int) -> Tensor:
        """Return the LR image of one HR image.

        Args:
            source: the HR image. If the degradation sharpens HR, that is done here, for the input only.
            path: its file below `folder`.
            scale: how many times smaller LR is.

        Returns:
            float32 `[1, 3, H // scale, W // scale]` in [0, 1], rounded to 8 bits.

        Raises:
            InputError: the image is so small that a step could leave no pixel.
        """
        disable_opencv_threads()
        image = prepare_hr(source, path, self.degradation, scale)
        name = path.relative_to(self.folder).as_posix()
        lr, _ = sample_lr(image, self.degradation, name, 1, scale=scale, seed=self.seed)
        return image_to_tensor(DecodedImage(to_uint8(lr)))

    def check(self, paths: Iterable[Path], scale: int) -> None:
        """Check, from their headers, that no step of the degradation leaves an image without pixels.

        Raises:
            InputError: an image is too small or unreadable.
            OSError: a file cannot be read.
        """
        for path in paths:
            header = read_header(path)
            check_degradable(path, header.height, header.width, self.degradation, scale)

    def describe(self) -> str:
        """Return how the inputs are made, for a protocol."""
        preset = getattr(self.degradation, "preset", "")
        changed = self.degradation != type(self.degradation).model_validate(
            {"kind": getattr(self.degradation, "kind", ""), "preset": preset}
        )
        return f"degraded by {preset}{' with changes' * changed}, seed {self.seed}, rounded to 8 bits"
