"""The shipped GAN recipes with such small networks that a step takes a second or less."""

from pathlib import Path
from typing import Any

from selfsr.recipe import read_yaml, shipped_recipes

PUBLISHED = ("esrgan", "ranksrgan", "spsr", "bebygan", "ldl", "swinirgan", "elangan", "realesrgan", "bsrgan")
PUBLISHED += ("elangan_bsrgan", "swinirgan_bsrgan")

# The smallest options of each kind of network.
SMALLEST: dict[str, dict[str, Any]] = {
    "rrdb": {"features": 4, "blocks": 1},
    "rank_srresnet": {"features": 4, "blocks": 1},
    "spsr": {"features": 4, "blocks": 4, "growth": 2},
    "swinir": {"features": 8, "depths": [1], "heads": [2]},
    "elan": {"features": 12, "blocks": 1, "windows_px": [2, 4, 8]},
    "compact": {"features": 4, "convs": 1},
}


def small_gan(name: str, *, hr: Path, pretrained: Path, batch: int) -> dict[str, Any]:
    """Return a shipped recipe with two steps, which are logged but not evaluated.

    Args:
        name: name of the recipe.
        hr: folder of training images.
        pretrained: folder from the fixture of that name.
        batch: crops in a step.
    """
    document = read_yaml(shipped_recipes()[name].read_text(), name)
    document.update(steps=2, batch=batch, crop_px=32, workers=0, start_from=None, precision="float32", evaluate=None)
    document["network"] = {"kind": document["network"]["kind"], **SMALLEST[document["network"]["kind"]]}
    document["data"] = {**document["data"], "hr": str(hr)}
    document["log"] = {"every_steps": 1}
    for discriminator in document["method"]["discriminators"].values():
        discriminator["network"].update(features=4)
        discriminator["network"].pop("stages", None)
    terms = document["method"]["terms"]
    if "perceptual" in terms:
        terms["perceptual"]["weights"] = str(pretrained / "vgg19.safetensors")
    if "rank" in terms:
        terms["rank"]["weights"] = str(pretrained / "ranker.pth")
    if isinstance(terms["similarity"].get("weight"), dict):
        terms["similarity"]["weight"]["calibrate_steps"] = 2
    return document
