"""Noise depends on a seed and a position, and on nothing else."""

import pytest
import torch

from selfsr.nets.diffusion.noise import draw_training_noise, draw_training_steps, sampling_noise

CPU = torch.device("cpu")


@pytest.mark.parametrize("window", [(0, 0, 10, 12), (60, 3, 9, 130), (64, 128, 64, 64), (130, 70, 20, 11)], ids=str)
def test_a_window_is_a_part_of_the_field(window: tuple[int, int, int, int]) -> None:
    top, left, height, width = window
    whole = sampling_noise(7, 2, 3, 0, 0, 200, 210, CPU)
    part = sampling_noise(7, 2, 3, top, left, height, width, CPU)
    assert torch.equal(part, whole[..., top : top + height, left : left + width])


def test_the_field_is_standard_normal() -> None:
    field = sampling_noise(1, 0, 3, 0, 0, 512, 512, CPU)
    count = field.numel()
    assert abs(field.mean().item()) < 4 / count**0.5
    assert abs(field.var().item() - 1) < 4 * (2 / count) ** 0.5
    neighbors = (field[..., :-1] * field[..., 1:]).mean().item()
    assert abs(neighbors) < 4 / count**0.5


@pytest.mark.parametrize("other", [{"seed": 2}, {"stage": 1}, {"top": 64}, {"left": 64}], ids=str)
def test_other_seeds_stages_and_places_have_other_noise(other: dict[str, int]) -> None:
    place = {"seed": 1, "stage": 0, "channels": 3, "top": 0, "left": 0, "height": 64, "width": 64, "device": CPU}
    first, second = sampling_noise(**place), sampling_noise(**{**place, **other})
    assert abs((first * second).mean().item()) < 4 / first.numel() ** 0.5


def test_the_field_does_not_depend_on_threads_or_the_global_generator() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(1)
        first = sampling_noise(3, 1, 32, 5, 6, 70, 80, CPU)
        torch.set_num_threads(2)
        torch.manual_seed(2)
        assert torch.equal(sampling_noise(3, 1, 32, 5, 6, 70, 80, CPU), first)
    finally:
        torch.set_num_threads(threads)


def test_training_draws_depend_on_the_slot_and_not_on_the_split() -> None:
    whole = draw_training_steps(1, 5, 0, 8, 15)
    parts = torch.cat([draw_training_steps(1, 5, first, 4, 15) for first in (0, 4)])
    assert torch.equal(whole, parts)
    noise = draw_training_noise(1, 5, 0, (8, 3, 4, 4), CPU)
    assert torch.equal(noise[4:], draw_training_noise(1, 5, 4, (4, 3, 4, 4), CPU))


@pytest.mark.parametrize("other", [(2, 5, 0), (1, 6, 0), (1, 5, 1)], ids=str)
def test_other_runs_steps_and_slots_draw_other_noise(other: tuple[int, int, int]) -> None:
    first = draw_training_noise(1, 5, 0, (1, 3, 64, 64), CPU)
    second = draw_training_noise(*other, (1, 3, 64, 64), CPU)
    assert abs((first * second).mean().item()) < 4 / first.numel() ** 0.5


def test_streams_of_one_step_differ() -> None:
    first, second = (draw_training_noise(1, 5, 0, (1, 3, 64, 64), CPU, stream) for stream in (0, 1))
    assert abs((first * second).mean().item()) < 4 / first.numel() ** 0.5


def test_diffusion_steps_are_uniform() -> None:
    steps = draw_training_steps(3, 1, 0, 8000, 4)
    shares = torch.bincount(steps, minlength=4) / 8000
    assert (shares - 0.25).abs().max() < 4 * (0.25 * 0.75 / 8000) ** 0.5
