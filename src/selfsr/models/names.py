"""Names as OpenModelDB has them: of models, authors, tags and architectures."""

import re
from collections.abc import Iterable

from selfsr.errors import InputError, suggest

_MODEL = re.compile(r"(\d+)x-[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")
# The pattern of an SPDX expression, such as "MIT" or "Apache-2.0 OR MIT".
_LICENSE = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# The tags that authors choose, from data/tags.json of OpenModelDB's repository, and the licenses whose terms it shows.
_TAGS = (
    "anime", "anti-aliasing", "cartoon", "colorization", "dds", "debanding", "deblur", "dedither", "dehalo", "denoise",
    "faces", "game-textures", "general-upscaler", "inpainting", "jpeg", "manga", "photo", "pixel-art", "pretrained",
    "research", "restoration", "text", "texture-generation", "video-frame",
)  # fmt: skip
_LICENSES = (
    "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "CC0-1.0",
    "GPL-3.0-only", "MIT", "Unlicense", "WTFPL",
)  # fmt: skip
# Where the name of an architecture is not the one that OpenModelDB derives from ours.
_ARCHITECTURES = {"srresnet": "sr-res-net"}


def check_model_name(name: str, scale: int) -> None:
    """Check a model's name as OpenModelDB does: `4x-` for scale 4, then words of letters and digits with hyphens.

    Raises:
        InputError: it has another form or another scale, or names the scale twice; the message has a repaired name.

    Example:
        >>> check_model_name("4x-waves", scale=4)
    """
    repaired = repair_model_name(name, scale)
    if name != repaired:
        raise InputError(
            f"--name: expected a name of the form {scale}x-Words-With-Hyphens for a model of scale {scale}, got "
            f"{name}; write --name {repaired}."
        )


def repair_model_name(name: str, scale: int) -> str:
    """Return the nearest name that `check_model_name` accepts.

    Example:
        >>> repair_model_name("my_photos x4", scale=4)
        '4x-my-photos'
    """
    words = _join_words(re.sub(r"^\d+x(?:[^a-zA-Z0-9]+|(?=[a-zA-Z]))", "", name.strip()))
    words = re.sub(rf"^(?:x{scale}|{scale}x)-?", "", words, flags=re.IGNORECASE)
    words = re.sub(rf"(?:^|-)(?:x{scale}|{scale}x)$", "", words, flags=re.IGNORECASE)
    return f"{scale}x-{words or 'model'}"


def is_model_name(name: str) -> bool:
    """Return whether OpenModelDB accepts a name for a model of any scale."""
    return _MODEL.fullmatch(name) is not None


def make_id(name: str) -> str:
    """Return the identifier of a name: lower case, words of letters, digits and `+` with hyphens.

    Example:
        >>> make_id("Jane Doe")
        'jane-doe'
    """
    return _join_words(name.lower(), kept="+")


def make_architecture_id(architecture: str) -> str:
    """Return the identifier of an architecture from spandrel's name or ours.

    Example:
        >>> make_architecture_id("RealPLKSR"), make_architecture_id("SRResNet (RankSRGAN)")
        ('realplksr', 'sr-res-net')
    """
    name = make_id(architecture.partition(" (")[0])
    return _ARCHITECTURES.get(name, name)


def check_tag(tag: str) -> None:
    """Check the form of a tag, such as "photo" or "general-upscaler".

    Raises:
        InputError: it has capital letters, spaces or other characters.
    """
    if tag != make_id(tag) or not tag:
        advice = f"write {make_id(tag)}" if make_id(tag) else "leave it out"
        raise InputError(f"--tag: expected lower-case words with hyphens, got {tag!r}; {advice}.")


def check_license(license: str) -> None:
    """Check the form of an SPDX expression.

    Raises:
        InputError: it has another form.
    """
    if not _LICENSE.fullmatch(license):
        raise InputError(
            f"--license: expected an SPDX identifier such as CC-BY-4.0 or MIT, got {license!r}; look it up at "
            "spdx.org/licenses."
        )


def describe_unknown_names(tags: Iterable[str], license: str | None) -> list[str]:
    """Return a note for each tag and license that OpenModelDB does not know. The lists are of November 2026.

    Args:
        tags: tags in the form that OpenModelDB has.
        license: an SPDX expression, or None.

    Example:
        >>> describe_unknown_names(["photos"], "MIT OR Apache-2.0")
        ['OpenModelDB has no tag photos; did you mean photo?']
    """
    notes = []
    for tag in tags:
        if tag not in _TAGS:
            notes.append(f"OpenModelDB has no tag {tag}{suggest(tag, _TAGS, 'its tags are ' + ', '.join(_TAGS))}")
    for name in (license or "").split(" OR "):
        if " " in name or "+" in name:
            notes.append(
                f"OpenModelDB expects a license of SPDX identifiers joined by OR only, got {license}; change the "
                "license, or its entry."
            )
        elif name and name not in _LICENSES:
            advice = suggest(name, _LICENSES, "it knows " + ", ".join(_LICENSES))
            notes.append(f"OpenModelDB shows the license {name} as Unknown License{advice}")
    return notes


def _join_words(text: str, kept: str = "") -> str:
    return re.sub(rf"[^a-zA-Z0-9{re.escape(kept)}]+", "-", text).strip("-")
