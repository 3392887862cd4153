"""The data of the image viewers: each sample image in all versions, with the crops that are worth a look."""

from typing import Any

from selfsr.report.crops import ReportCrop, choose_crops, choose_part, compute_psnr_y
from selfsr.report.encoding import encode_webp
from selfsr.report.images import ImageVersion, ReportImage
from selfsr.runfolder.read import RunFolder

# Images are shown in full up to this side, if all of them fit in the pixels of a page; of larger ones, a part is.
LONGEST_PX = 768
SHORTEST_PART_PX = 256
# A pixel takes about 1.5 bytes of the page.
PAGE_PIXELS = 8_000_000


def make_image_cards(images: list[ReportImage], lead: int, runs: list[RunFolder]) -> list[dict[str, Any]]:
    """Return the viewers of all images that have a crop."""
    longest_px = _fit_longest_side(images)
    cards = [_make_card(image, lead, runs, longest_px) for image in images]
    return [card for card in cards if card["crops"]]


def _fit_longest_side(images: list[ReportImage]) -> int:
    """Return the largest side at which all versions of all images stay below the pixels of a page."""
    longest_px = LONGEST_PX
    while longest_px > SHORTEST_PART_PX:
        pixels = 0
        for image in images:
            height, width = (min(side, longest_px) for side in image.hr.shape[:2])
            pixels += height * width * (len(image.versions) + 2)
        if pixels <= PAGE_PIXELS:
            break
        longest_px -= 64
    return longest_px


def _make_card(image: ReportImage, lead: int, runs: list[RunFolder], longest_px: int) -> dict[str, Any]:
    full_height, full_width = image.hr.shape[:2]
    part = choose_part(image, lead, longest_px)
    if part is not None:
        image = image.cut(part.top, part.left, part.side, part.side)
    height, width = image.hr.shape[:2]
    crops = choose_crops(image, lead)
    return {
        "name": image.name,
        "size": f"{width} x {height}",
        "part_of": "" if part is None else f"{full_width} x {full_height}",
        "width": width,
        "height": height,
        "crops": [{"reason": c.reason, "left": c.left, "top": c.top, "side": c.side} for c in crops],
        "versions": [_make_version(*version, image, crops) for version in _list_versions(image, lead, runs)],
    }


def _list_versions(image: ReportImage, lead: int, runs: list[RunFolder]) -> list[tuple[str, ImageVersion]]:
    """Return all versions with their roles, in the order of the page; the first ones have the first keys."""
    versions = [("lr", ImageVersion("LR", image.lr))] if image.lr is not None and image.scale else []
    versions += [("bicubic", image.bicubic)] if image.bicubic else []
    starts = [v for v in image.versions if v.step == 0 and v.run is not None and runs[v.run].is_fine_tune]
    versions += [("start", version) for version in sorted(starts, key=lambda version: version.run != lead)]
    versions += [("lead" if version.run == lead else "run", version) for version in image.last]
    versions.append(("hr", ImageVersion("HR", image.hr)))
    versions += [
        ("earlier", version)
        for version in image.versions
        if version.earlier and not any(version is start for start in starts)
    ]
    return versions


def _make_version(role: str, version: ImageVersion, image: ReportImage, crops: list[ReportCrop]) -> dict[str, Any]:
    scores = []
    if role not in ("hr", "lr"):
        scores = [compute_psnr_y(version.pixels, image.hr)]
        scores += [compute_psnr_y(crop.cut(version.pixels), crop.cut(image.hr)) for crop in crops]
    return {
        "label": version.label,
        "run": version.run,
        "role": role,
        "psnr": [f"{score:.2f} dB" for score in scores],
        "image": encode_webp(version.pixels, fast=True),
    }
