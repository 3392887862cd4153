"""Degradations: HR to LR as cameras, editors and networks do it, in place of bicubic.

A recipe names one by its preset (`degrade: bsrgan_ssl`) or changes some of its numbers
(`degrade: {kind: bsrgan, preset: bsrgan_ssl, jpeg_quality: [60, 95]}`). docs/degradations.md has the processes, the
presets' numbers and what is done differently from the published codes.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from selfsr._checks import check_choice
from selfsr.data.degrade.bsrgan import Bsrgan
from selfsr.data.degrade.real_esrgan import RealEsrgan

PRESETS: dict[str, str] = {name: "real_esrgan" for name in RealEsrgan.presets} | {
    name: "bsrgan" for name in Bsrgan.presets
}


def _named(given: Any) -> Any:
    """Turn the bare name of a preset into the spec's keys."""
    if not isinstance(given, str):
        return given
    if given not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}, got {given!r}")
    return {"kind": PRESETS[given], "preset": given}


Degradation = Annotated[
    Annotated[RealEsrgan | Bsrgan, Field(discriminator="kind")],
    BeforeValidator(_named),
]


def preset(name: str) -> RealEsrgan | Bsrgan:
    """Return the degradation of that name.

    Raises:
        InputError: there is none; the error names the nearest.
    """
    check_choice("degrade", "preset", name, tuple(PRESETS))
    return TypeAdapter(Degradation).validate_python(name)
