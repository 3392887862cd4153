"""A run that is killed at random moments, during writes as well, ends with the bits of one that nobody stopped."""

from pathlib import Path

import pytest

import kill


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_bits(tmp_path: Path) -> None:
    runs = list(kill.kill_runs(tmp_path, kills=3, kills_per_run=3, seed=0))
    assert sum(len(kills) for kills, _ in runs) >= 3
    assert all(kills for kills, _ in runs)
    assert [problems for _, problems in runs if problems] == []
