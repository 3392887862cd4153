"""Broken and hostile input gives one sentence or a right result: the targets of fuzz.py with few examples each."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fuzz

# As many as take one to three seconds. `python tests/fuzz.py --minutes 30` tries more.
EXAMPLES = {"recipes": 80, "settings": 80, "images": 80, "weights": 25, "masks": 12, "runs": 3, "names": 4}


def test_every_target_has_examples() -> None:
    assert EXAMPLES.keys() == fuzz.TARGETS.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", EXAMPLES)
def test_input_gives_a_sentence_or_a_right_result(target: str) -> None:
    @settings(
        max_examples=EXAMPLES[target],
        derandomize=True,
        database=None,
        deadline=None,
        # A seed does not get simpler by getting smaller.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        assert fuzz.run_try(target, seed) is None

    check()


def test_the_fuzzer_finds_tracebacks_and_files_outside() -> None:
    def fail(rng: object, folder: fuzz.Path) -> None:
        with fuzz.allowed():
            raise KeyError("x")

    def leave(rng: object, folder: fuzz.Path) -> None:
        (folder.parent / "outside").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fuzz.TARGETS, "fail", fail)
        patch.setitem(fuzz.TARGETS, "leave", leave)
        found = fuzz.run_try("fail", 0)
        assert found is not None
        assert found.startswith("KeyError: 'x'")
        assert "files outside the folder: ['outside']" in str(fuzz.run_try("leave", 0))
