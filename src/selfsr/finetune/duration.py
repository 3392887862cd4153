"""Read a duration such as 30m."""

import re

from selfsr.errors import InputError, describe_value

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)([hms])")


def read_duration_s(text: str) -> float:
    """Return a duration in seconds.

    Args:
        text: hours, minutes and seconds, such as `"30m"`, `"1h30m"` or `"90s"`.

    Raises:
        InputError: the text is not a duration, or the duration is zero.

    Example:
        >>> read_duration_s("1h30m")
        5400.0
    """
    compact = text.strip().lower().replace(" ", "")
    parts = _PARTS.findall(compact)
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != compact or seconds <= 0:
        raise InputError(f"--for: expected a duration such as 30m, 2h or 1h30m, got {describe_value(text)}.")
    return seconds
