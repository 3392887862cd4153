"""The color scale of the maps, from dark violet through teal to yellow.

Lightness rises evenly from 0.24 to 0.95 in OKLCh (Ottosson, "A perceptual color space for image processing", 2020).
Equal differences of a value therefore look equally large, and the scale also works in a gray print.
"""

# sRGB in [0, 1], for the values 0 to 1 in equal steps.
SCALE_COLORS = (
    (0.1771, 0.0091, 0.2945),
    (0.2006, 0.0401, 0.3433),
    (0.2229, 0.0756, 0.3934),
    (0.2438, 0.1095, 0.4448),
    (0.2508, 0.1542, 0.4934),
    (0.2447, 0.2049, 0.5363),
    (0.2337, 0.2543, 0.5750),
    (0.2171, 0.3039, 0.6077),
    (0.1951, 0.3564, 0.6246),
    (0.1799, 0.4061, 0.6357),
    (0.1800, 0.4530, 0.6421),
    (0.1563, 0.5012, 0.6524),
    (0.1276, 0.5494, 0.6579),
    (0.1320, 0.5957, 0.6558),
    (0.1554, 0.6407, 0.6508),
    (0.1548, 0.6874, 0.6459),
    (0.1992, 0.7320, 0.6298),
    (0.2776, 0.7736, 0.6025),
    (0.3405, 0.8149, 0.5788),
    (0.4143, 0.8540, 0.5475),
    (0.5008, 0.8900, 0.5054),
    (0.6092, 0.9194, 0.4556),
    (0.7321, 0.9410, 0.4076),
    (0.8509, 0.9590, 0.3615),
    (0.9665, 0.9736, 0.3229),
)


def make_svg_tables() -> dict[str, str]:
    """Return the `tableValues` of an SVG filter that colors a gray image, for each of r, g and b."""
    return {name: " ".join(f"{color[channel]:.4f}" for color in SCALE_COLORS) for channel, name in enumerate("rgb")}


def make_css_gradient() -> str:
    """Return the scale as the color stops of a CSS `linear-gradient`, from low to high."""
    return ", ".join(f"rgb({round(255 * r)} {round(255 * g)} {round(255 * b)})" for r, g, b in SCALE_COLORS)
