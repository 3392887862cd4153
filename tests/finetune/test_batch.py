"""The batch that fits into the free memory."""

import pytest
import torch
from torch import nn

from selfsr.errors import InputError
from selfsr.finetune.batch import choose_batch, measure_activation_bytes

MB = 2**20


def test_activations_are_what_the_backward_pass_reads():
    """A convolution keeps its input and a ReLU its output: 3 and 8 channels of 10 x 12 float32."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    lr = torch.rand(2, 3, 10, 12)
    assert measure_activation_bytes(net, lr) == 2 * (3 + 8) * 10 * 12 * 4


@pytest.mark.parametrize(
    ("sample_mb", "gan", "batch"), [(1, False, 16), (1, True, 8), (50, False, 4), (50, True, 2), (200, False, 1)]
)
def test_the_batch_takes_two_fifths_of_the_free_memory(monkeypatch, sample_mb, gan, batch):
    monkeypatch.setattr("selfsr.finetune.batch.measure_free_bytes", lambda _: 1000 * MB)
    assert choose_batch(sample_mb * MB, torch.device("cpu"), gan=gan, minimum=1) == batch


def test_a_network_keeps_its_smallest_batch(monkeypatch):
    monkeypatch.setattr("selfsr.finetune.batch.measure_free_bytes", lambda _: 1000 * MB)
    assert choose_batch(200 * MB, torch.device("cpu"), gan=False, minimum=2) == 2


def test_too_little_memory_is_one_sentence(monkeypatch):
    monkeypatch.setattr("selfsr.finetune.batch.measure_free_bytes", lambda _: 10 * MB)
    with pytest.raises(InputError, match="expected memory for a batch of 1, about 12 MB, got 10 MB"):
        choose_batch(6 * MB, torch.device("cpu"), gan=False, minimum=1)
