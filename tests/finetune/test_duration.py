"""Durations such as 30m."""

import pytest

from selfsr.errors import InputError
from selfsr.finetune.duration import read_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("90s", 90), ("1h30m", 5400), ("0.5h", 1800), ("1H 5m", 3900)]
)
def test_durations(text, seconds):
    assert read_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "0m", "30 minutes", "1d", "5m!"])
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match="--for: expected a duration such as 30m"):
        read_duration_s(text)
