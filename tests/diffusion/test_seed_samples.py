"""The files that show what is random in a network's samples."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from factories import texture
from sampled_nets import make_net
from selfsr.images.resize import imresize
from selfsr.nets.diffusion.sampling import set_sampling
from selfsr.training.seed_samples import STAGE_PX, SeedSampleWriter


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(float)


def images(height: int = 112, width: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    hr = torch.from_numpy(texture(4, height, width).transpose(2, 0, 1)).float()[None] / 255
    return imresize(hr, 0.5).clamp(0, 1), hr


def write(net, folder: Path, step: int = 20, channels: int = 3, seeds: tuple[int, ...] = (3, 1, 8)) -> None:
    writer = SeedSampleWriter("residual_shifting", channels, seeds)
    writer.write(net, folder, step, *images(), lambda image: image[..., 8:-8, 8:-8])


def test_each_seed_has_its_sample_and_the_map_their_standard_deviation(tmp_path: Path) -> None:
    net = make_net(unet={"channels": [8], "groups": 4})
    set_sampling(net, seed=77)
    before = net.sampling
    write(net, tmp_path)
    assert net.sampling == before
    samples = []
    for seed in (3, 1, 8):
        set_sampling(net, seed=seed)
        samples.append(net(images()[0]).clamp(0, 1)[0, :, 8:-8, 8:-8].permute(1, 2, 0).double().numpy())
        assert np.abs(read(tmp_path / f"sr_00000020_seed{seed}.png") - 255 * samples[-1]).max() <= 0.501
    expected = np.std(samples, axis=0, ddof=1).mean(axis=2)
    assert expected.max() > 0.01
    shown = read(tmp_path / "seed_std_00000020.png") / 255 * 0.1
    assert np.abs(shown - expected.clip(max=0.1)).max() < 0.5001 / 255 * 0.1 + 1e-7


def test_stages_go_from_noise_to_the_sample_and_the_truth(tmp_path: Path) -> None:
    net = make_net(unet={"channels": [8], "groups": 4}, shift={"steps": 3}, sample={"color_fix": "none"})
    write(net, tmp_path)
    strip = read(tmp_path / "stages_00000020.png")
    assert strip.shape == (STAGE_PX, 5 * STAGE_PX, 3)
    squares = np.split(strip, 5, axis=1)
    sample, truth = (
        read(tmp_path / "sr_00000020_seed3.png"),
        255 * images()[1][0, :, 8:-8, 8:-8].permute(1, 2, 0).numpy(),
    )
    places = [
        (top, left)
        for top in range(truth.shape[0] - STAGE_PX + 1)
        for left in range(truth.shape[1] - STAGE_PX + 1)
        if np.abs(truth[top : top + STAGE_PX, left : left + STAGE_PX] - squares[-1]).max() < 0.51
    ]
    ((top, left),) = places
    assert np.array_equal(sample[top : top + STAGE_PX, left : left + STAGE_PX], squares[-2])
    set_sampling(net, seed=3)
    x = {}
    net.sample(images()[0], lambda index, image: x.update({index: image}))
    assert list(x) == [2, 1, 0, -1]
    start = 255 * x[2][0, :, 8:-8, 8:-8].clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.abs(start[top : top + STAGE_PX, left : left + STAGE_PX] - squares[0]).max() <= 0.501


def test_a_gray_network_shows_stages_of_luma_and_samples_in_color(tmp_path: Path) -> None:
    write(make_net(channels=1), tmp_path, channels=1)
    assert read(tmp_path / "stages_00000020.png").ndim == 2
    assert read(tmp_path / "sr_00000020_seed1.png").ndim == 3


def test_the_folder_keeps_the_newest_files_only(tmp_path: Path) -> None:
    (tmp_path / "sr_00000010.png").touch()
    net = make_net()
    write(net, tmp_path, step=10)
    write(net, tmp_path, step=20, seeds=(4,))
    assert {path.name for path in tmp_path.iterdir()} == {
        "sr_00000010.png",
        "sr_00000020_seed4.png",
        "stages_00000020.png",
    }
