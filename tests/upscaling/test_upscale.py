"""Pictures through a model: what is kept, what memory does, which precision is used."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.images.files import Picture, from_tensor, to_tensor
from selfsr.nets.layers import Float32Conv2d
from selfsr.nets.weights.load import Model
from selfsr.upscaling import upscaler as upscale_module
from selfsr.upscaling.tiling import self_ensemble
from selfsr.upscaling.upscaler import Upscaler, filled, parse_tile

CPU = torch.device("cpu")


class Doubler(nn.Module):
    """Nearest neighbor x2; counts its calls and remembers the largest input."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.calls = 0
        self.largest_px = 0
        self.too_large_px = 10**9

    def forward(self, x):
        self.calls += 1
        if max(x.shape[-2:]) > self.too_large_px:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
        self.largest_px = max(self.largest_px, *x.shape[-2:])
        return functional.interpolate(x, scale_factor=2)


def conv_net(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4 * channels, 3, padding=1), nn.PixelShuffle(2)
    )


def model(net: nn.Module, **facts) -> Model:
    described = Model(
        net=net.eval(),
        architecture="Tiny",
        scale=2,
        channels=3,
        tiling="supported",
        multiple_of_px=1,
        minimum_px=1,
        square=False,
        supports_half=True,
        supports_bfloat16=True,
    )
    return replace(described, **facts)


def upscaler(net: nn.Module, *, facts=None, precision="float32", **options) -> Upscaler:
    return Upscaler(model(net, **(facts or {})), device=CPU, precision=precision, **options)


def random_picture(height: int, width: int, channels: int = 3, dtype=np.uint8, alpha: bool = False, **rest) -> Picture:
    random = np.random.default_rng(0)
    peak = np.iinfo(dtype).max
    pixels = random.integers(0, peak, (height, width, channels), dtype, endpoint=True)
    return Picture(pixels, random.integers(0, peak, (height, width), dtype, endpoint=True) if alpha else None, **rest)


def doubled(array: np.ndarray) -> np.ndarray:
    return array.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("tile", ["off", 32])
def test_depth_colors_alpha_and_profile_are_kept(dtype, channels, alpha, tile, tmp_path):
    """Nearest neighbor changes no value, so every bit must come through, tiled or not."""
    picture = random_picture(50, 37, channels, dtype, alpha, icc=b"a profile")
    if alpha:
        picture.alpha[picture.alpha == 0] = 1  # under alpha 0 colors are replaced, see below
    out = upscaler(Doubler(), tile=tile).picture(picture, scratch=tmp_path)
    assert out.pixels.dtype == dtype
    assert np.array_equal(out.pixels, doubled(picture.pixels))
    assert out.icc == b"a profile"
    assert (out.alpha is None) is not alpha
    if alpha:
        assert np.array_equal(out.alpha, doubled(picture.alpha))


def test_a_picture_is_what_the_network_gives_rounded(tmp_path):
    net = conv_net()
    picture = random_picture(20, 33)
    with torch.no_grad():
        expected = from_tensor(net(to_tensor(picture))[0])
    out = upscaler(net).picture(picture, scratch=tmp_path)
    assert np.abs(out.pixels.astype(int) - expected).max() <= 1
    assert (out.pixels != expected).mean() < 0.001
    assert expected.std() > 5


def test_opaque_alpha_stays_opaque_and_costs_nothing(tmp_path):
    net = Doubler()
    picture = random_picture(20, 20)
    picture = replace(picture, alpha=np.full((20, 20), 255, np.uint8))
    out = upscaler(net, tile="off").picture(picture, scratch=tmp_path)
    assert net.calls == 1
    assert int(out.alpha.min()) == 255


def test_alpha_stays_within_its_neighborhood(tmp_path):
    """A network that overshoots must not make opaque parts translucent, nor empty parts visible."""
    alpha = np.zeros((24, 24), np.uint8)
    alpha[:, 12:] = 255
    alpha[12, 12] = 90
    out = upscaler(conv_net(), tile="off").picture(replace(random_picture(24, 24), alpha=alpha), scratch=tmp_path)
    assert int(out.alpha[:, :22].max()) == 0
    assert int(out.alpha[:20, 26:].min()) == 255
    assert len(np.unique(out.alpha)) > 2


def test_hidden_colors_do_not_bleed(tmp_path):
    """A red disc on transparent black: wherever it shows, the result is red."""
    rows, columns = np.mgrid[:40, :40]
    disc = (rows - 20) ** 2 + (columns - 17) ** 2 < 100
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[disc] = (200, 10, 20)

    class Blur(Doubler):
        def forward(self, x):
            return functional.interpolate(functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False), scale_factor=2)

    alpha = (disc * 255).astype(np.uint8)
    out = upscaler(Blur(), tile="off").picture(Picture(pixels, alpha), scratch=tmp_path)
    shown = out.alpha > 0
    assert shown.sum() > 4 * disc.sum()
    assert np.abs(out.pixels[shown].astype(int) - (200, 10, 20)).max() <= 1
    bled = upscaler(Blur(), tile="off").picture(Picture(pixels), scratch=tmp_path).pixels[shown]
    assert np.abs(bled.astype(int) - (200, 10, 20)).max() > 50


def test_filling_keeps_what_is_known():
    colors = torch.rand(1, 3, 13, 9)
    known = torch.rand(1, 1, 13, 9) > 0.8
    out = filled(colors, known)
    kept = known.expand_as(colors)
    assert torch.equal(out[kept], colors[kept])
    assert bool((out[~kept] >= colors[kept].min()).all())
    assert bool((out[~kept] <= colors[kept].max()).all())
    assert torch.equal(filled(colors, known & False), colors)
    assert torch.equal(filled(colors, known | True), colors)


def test_tiles_are_halved_when_memory_runs_out(tmp_path):
    net = Doubler()
    net.too_large_px = 70
    told = []
    picture = random_picture(150, 300)
    run = upscaler(net, tile=256, notify=told.append)
    out = run.picture(picture, scratch=tmp_path)
    assert np.array_equal(out.pixels, doubled(picture.pixels))
    assert told == [
        "Out of memory; going on with tiles of 128 px.",
        "Out of memory; going on with tiles of 64 px.",
    ]
    assert net.largest_px <= 64
    calls = net.calls
    run.picture(picture, scratch=tmp_path)  # remembers the size that fits
    assert len(told) == 2
    assert net.calls - calls < calls
    expected = functional.interpolate(to_tensor(picture), scale_factor=2)
    assert torch.allclose(run(to_tensor(picture)), expected, atol=1e-6)


def test_no_tile_fits(tmp_path):
    net = Doubler()
    net.too_large_px = 5
    picture = random_picture(150, 300)
    with pytest.raises(InputError) as error:
        upscaler(net, tile=64, notify=lambda _: None).picture(picture, scratch=tmp_path)
    assert str(error.value) == (
        "upscale: not even a tile of 32 px fits into memory (CUDA out of memory. Tried to allocate 2.00 GiB); "
        "free some, or use --device cpu."
    )
    with pytest.raises(InputError, match=r"out of memory \(CUDA out of memory.*\); do not switch tiles off\.$"):
        upscaler(net, tile="off").picture(picture, scratch=tmp_path)


def test_pythons_own_memory_error_says_nothing_and_is_understood(tmp_path):
    class Starved(Doubler):
        def forward(self, x):
            raise MemoryError

    with pytest.raises(InputError, match=r"a tile of 32 px fits into memory \(MemoryError\)"):
        upscaler(Starved(), tile=32).picture(random_picture(50, 40), scratch=tmp_path)


def test_other_errors_are_not_taken_for_memory(tmp_path):
    class Broken(Doubler):
        def forward(self, x):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        upscaler(Broken()).picture(random_picture(9, 9), scratch=tmp_path)


def test_the_tile_is_chosen_from_free_memory_and_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(upscale_module, "largest_tile_px", lambda *a, **k: asked.append(k) or 64)
    net = Doubler()
    run = upscaler(net, facts={"minimum_px": 16})
    run.picture(random_picture(100, 90), scratch=tmp_path)
    assert asked == []  # small: not worth measuring
    assert net.largest_px == 100
    net.largest_px = 0
    for _ in range(2):
        run.picture(random_picture(200, 90), scratch=tmp_path)
    assert asked == [{"multiple_px": 1, "minimum_px": 16}]
    assert net.largest_px <= 64


@pytest.mark.parametrize("tiling", ["discouraged", "internal"])
def test_networks_that_must_see_the_whole_picture_are_cut_only_if_need_be(tiling, tmp_path):
    net = Doubler()
    told = []
    picture = random_picture(200, 300)
    run = upscaler(net, facts={"tiling": tiling, "multiple_of_px": 8}, notify=told.append)
    assert np.array_equal(run.picture(picture, scratch=tmp_path).pixels, doubled(picture.pixels))
    assert net.largest_px == 304
    assert told == []
    net.too_large_px = 200
    assert np.array_equal(run.picture(picture, scratch=tmp_path).pixels, doubled(picture.pixels))
    assert told == ["Out of memory; going on with tiles of 144 px."]


def test_large_outputs_live_in_a_file_and_leave_none(tmp_path, monkeypatch):
    monkeypatch.setattr("selfsr.images.large.LARGE_BYTES", 1000)
    picture = random_picture(60, 40, alpha=True)
    picture.alpha[picture.alpha == 0] = 1
    out = upscaler(Doubler(), tile=32).picture(picture, scratch=tmp_path)
    assert isinstance(out.pixels, np.memmap)
    assert isinstance(out.alpha, np.memmap)
    assert np.array_equal(out.pixels, doubled(picture.pixels))
    assert list(tmp_path.iterdir()) == []


def test_self_ensemble_option(tmp_path):
    net = conv_net()
    picture = random_picture(20, 30)
    ours = upscaler(net, ensemble=True)(to_tensor(picture))
    with torch.no_grad():
        expected = self_ensemble(lambda x: net(x).clamp(0, 1))(to_tensor(picture))
    assert torch.allclose(ours, expected, atol=1e-6)
    assert not torch.allclose(ours, upscaler(net)(to_tensor(picture)), atol=1e-3)


def test_progress_counts_tiles(tmp_path):
    seen = []
    upscaler(Doubler(), tile=32, overlap_px=0).picture(
        random_picture(64, 96), scratch=tmp_path, on_tile=lambda *a: seen.append(a)
    )
    assert seen == [(k, 6) for k in range(1, 7)]


def native_bfloat16(monkeypatch, native: bool) -> None:
    monkeypatch.setattr(upscale_module, "why_not_bfloat16", lambda _: None if native else "it would be emulated")


def test_auto_takes_bfloat16_where_it_is_native_and_fine_enough(monkeypatch):
    coarse, fine = conv_net(), conv_net()
    fine[2] = Float32Conv2d.like(fine[2])
    native_bfloat16(monkeypatch, True)
    assert upscaler(fine, precision="auto").precision == "bfloat16"
    assert upscaler(coarse, precision="auto").precision == "float32"  # its last layer would round to steps of 1/256
    assert upscaler(coarse, precision="bfloat16").precision == "bfloat16"
    assert upscaler(fine, precision="auto", facts={"supports_bfloat16": False}).precision == "float32"
    native_bfloat16(monkeypatch, False)
    assert upscaler(fine, precision="auto").precision == "float32"


def test_deep_pictures_are_upscaled_in_float32(monkeypatch, tmp_path):
    native_bfloat16(monkeypatch, True)
    net = conv_net()
    net[2] = Float32Conv2d.like(net[2])
    exact, auto, half = (upscaler(net, precision=name) for name in ("float32", "auto", "bfloat16"))
    shallow, deep = random_picture(16, 16), random_picture(16, 16, dtype=np.uint16)
    results = [[run.picture(p, scratch=tmp_path).pixels for run in (exact, auto, half)] for p in (shallow, deep)]
    assert np.array_equal(results[1][0], results[1][1])
    assert not np.array_equal(results[1][0], results[1][2])
    assert np.array_equal(results[0][1], results[0][2])


@pytest.mark.parametrize(
    ("facts", "precision", "message"),
    [
        ({}, "float16", "upscale: float16 cannot be used: float16 is for GPUs, the device is the CPU"),
        ({}, "bfloat16", "upscale: bfloat16 cannot be used: it would be emulated"),
    ],
)
def test_a_precision_that_is_not_to_be_had(facts, precision, message, monkeypatch):
    native_bfloat16(monkeypatch, False)
    with pytest.raises(InputError) as error:
        upscaler(conv_net(), facts=facts, precision=precision)
    assert str(error.value) == message + "; use --precision auto."
    native_bfloat16(monkeypatch, True)
    with pytest.raises(InputError, match="Tiny does not support it"):
        upscaler(conv_net(), facts={"supports_bfloat16": False}, precision="bfloat16")


class Overflows(Doubler):
    """As a network that leaves the range of a half precision does: infinite under autocast, sound without."""

    broken = False

    def forward(self, x):
        out = super().forward(x)
        return out + float("inf") if torch.is_autocast_enabled(x.device.type) or self.broken else out


def test_overflow_of_a_half_precision_is_mended(monkeypatch, tmp_path):
    native_bfloat16(monkeypatch, True)
    told = []
    run = upscaler(Overflows(), precision="bfloat16", notify=told.append)
    picture = random_picture(10, 12)
    for _ in range(2):
        assert np.array_equal(run.picture(picture, scratch=tmp_path).pixels, doubled(picture.pixels))
    assert told == ["Tiny leaves the range of bfloat16; going on in float32."]


def test_a_broken_model_is_told(tmp_path):
    net = Overflows()
    net.broken = True
    with pytest.raises(InputError, match=r"^upscale: the output of Tiny has NaN or infinite values; the model or its"):
        upscaler(net).picture(random_picture(10, 12), scratch=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 16}, "upscale: the tile must be auto, off or at least 32 px, got 16."),
        (
            {"tile": 64, "overlap_px": 33},
            "upscale: the overlap must be from 0 to half of the tile, got 33 px with tile 64.",
        ),
        (
            {"overlap_px": -1},
            "upscale: the overlap must be from 0 to half of the tile, got -1 px with tile auto.",
        ),
    ],
)
def test_tile_and_overlap_are_checked(options, message):
    with pytest.raises(InputError) as error:
        upscaler(Doubler(), **options)
    assert str(error.value) == message


def test_tile_option():
    assert [parse_tile(text) for text in ("auto", "off", "256")] == ["auto", "off", 256]
    with pytest.raises(InputError, match=r"^upscale: --tile must be auto, off or a number of pixels, got '-1'\.$"):
        parse_tile("-1")
