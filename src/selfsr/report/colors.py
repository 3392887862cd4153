"""The color scale of the maps: dark violet over teal to yellow, in equal steps of perceived lightness.

The anchors lie on a straight line of lightness in OKLCh (Ottosson, "A perceptual color space for image
processing", 2020), so that equal differences of a value look equally large and the scale survives a gray print.
"""

import math

# Hue in degrees and chroma along the scale; lightness runs linearly from the first number to the second.
_LIGHTNESS = (0.24, 0.95)
_HUE_CHROMA = ((305, 0.12), (295, 0.14), (270, 0.13), (240, 0.10), (200, 0.10), (165, 0.13), (140, 0.17), (110, 0.18))
_ANCHORS = 25


def _srgb(lightness: float, chroma: float, hue_deg: float) -> tuple[float, float, float]:
    """Turn OKLCh into gamma-encoded sRGB, clipped to [0, 1]."""
    a, b = chroma * math.cos(math.radians(hue_deg)), chroma * math.sin(math.radians(hue_deg))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    encoded = [12.92 * v if v <= 0.0031308 else 1.055 * max(v, 0.0) ** (1 / 2.4) - 0.055 for v in linear]
    red, green, blue = (min(max(v, 0.0), 1.0) for v in encoded)
    return red, green, blue


def scale_colors() -> list[tuple[float, float, float]]:
    """Return the anchors of the color scale, sRGB in [0, 1], for values 0 to 1 in equal steps."""
    colors = []
    for index in range(_ANCHORS):
        t = index / (_ANCHORS - 1)
        place = t * (len(_HUE_CHROMA) - 1)
        left = min(int(place), len(_HUE_CHROMA) - 2)
        (hue_0, chroma_0), (hue_1, chroma_1) = _HUE_CHROMA[left : left + 2]
        part = place - left
        lightness = _LIGHTNESS[0] + t * (_LIGHTNESS[1] - _LIGHTNESS[0])
        colors.append(_srgb(lightness, chroma_0 + part * (chroma_1 - chroma_0), hue_0 + part * (hue_1 - hue_0)))
    return colors


def svg_tables() -> dict[str, str]:
    """Return `tableValues` of an SVG filter that colors a gray picture, for each of r, g, b."""
    return {name: " ".join(f"{color[channel]:.4f}" for color in scale_colors()) for channel, name in enumerate("rgb")}


def css_gradient() -> str:
    """Return the scale as the color stops of a CSS `linear-gradient`, from low to high."""
    return ", ".join(f"rgb({round(255 * r)} {round(255 * g)} {round(255 * b)})" for r, g, b in scale_colors())
