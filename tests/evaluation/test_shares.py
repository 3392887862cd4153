"""An evaluation that processes share: every image once, and the scores of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch

from factories import texture
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.seeds import Sampler
from selfsr.evaluation.shares import join_shares, split_indices
from selfsr.images.files import DecodedImage, write_image

CPU = torch.device("cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for index in range(5):
        write_image(tmp_path / f"{index}.png", DecodedImage(texture(index, 40 + index, 36)))
    return sorted(tmp_path.glob("*.png"))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("first", [0, 1, 5, 9])
def test_every_image_has_one_process(count: int, processes: int, first: int) -> None:
    shares = split_indices(count, processes, first)
    assert len(shares) == processes
    assert [index for share in shares for index in share] == list(range(count))
    assert len(shares[0]) >= min(count, first)
    sizes = [len(share) for share in shares[1:]]
    assert not sizes or max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_joined_scores_equal_those_of_one_process(paths: list[Path], processes: int) -> None:
    upscale = make_bicubic_upscaler(2)
    whole = evaluate_set(upscale, "set", paths, scale=2, device=CPU)
    shares = [
        evaluate_set(upscale, "set", paths, scale=2, device=CPU, only=only)
        for only in split_indices(len(paths), processes)
    ]
    joined = join_shares(shares)
    assert joined == whole
    assert list(joined.images) == list(whole.images)


def test_scores_by_seed_are_joined(paths: list[Path]) -> None:
    seed = 0

    def choose(value: int) -> None:
        nonlocal seed
        seed = value

    def upscale(lr: torch.Tensor) -> torch.Tensor:
        return make_bicubic_upscaler(2)(lr) * (1 - 0.1 * seed)

    options = {"scale": 2, "device": CPU, "sampler": Sampler((0, 1), choose)}
    whole = evaluate_set(upscale, "set", paths, **options)
    shares = [evaluate_set(upscale, "set", paths, **options, only=only) for only in split_indices(5, 3)]
    assert join_shares(shares).as_json() == whole.as_json()


def test_an_unreadable_image_is_reported_in_its_turn(paths: list[Path]) -> None:
    paths[1].write_bytes(b"no image")
    upscale, seen, failures = make_bicubic_upscaler(2), [], []
    with pytest.raises(InputError, match=r"1\.png: expected a readable image"):
        evaluate_set(upscale, "set", paths, scale=2, device=CPU, on_image=lambda name, *_: seen.append(name))
    assert seen == ["0"]
    scores = evaluate_set(upscale, "set", paths, scale=2, device=CPU, on_failure=failures.append)
    assert list(scores.images) == ["0", "2", "3", "4"]
    assert len(failures) == 1
    assert np.isfinite(scores.mean["psnr_y"])
