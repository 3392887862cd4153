"""Pictures through a model: what is kept, what memory does, which precision is used."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, image_to_tensor, tensor_to_pixels
from selfsr.machine.device import why_not_bfloat16
from selfsr.nets.layers import Float32Conv2d
from selfsr.nets.weights.model import Model
from selfsr.upscaling import precision as precision_module
from selfsr.upscaling import upscaler as upscale_module
from selfsr.upscaling.alpha import fill_unknown
from selfsr.upscaling.network import CastNetwork
from selfsr.upscaling.precision import make_probe, measure_rounding, why_not_float16
from selfsr.upscaling.tile_size import parse_tile
from selfsr.upscaling.tiling import self_ensemble
from selfsr.upscaling.upscaler import Upscaler

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


def offset_net() -> nn.Module:
    """Return nearest neighbor x2 whose hidden values are around 100, where bfloat16 rounds to steps of 0.5."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 12, 1), nn.PixelShuffle(2))
    for layer, repeats, bias in zip(net, (1, 1, 4), (100.0, 0.0, -100.0), strict=False):
        layer.weight.data = torch.eye(3).repeat_interleave(repeats, 0)[..., None, None]
        layer.bias.data.fill_(bias)
    return net


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


def random_image(
    height: int, width: int, channels: int = 3, dtype=np.uint8, alpha: bool = False, **rest
) -> DecodedImage:
    random = np.random.default_rng(0)
    peak = np.iinfo(dtype).max
    pixels = random.integers(0, peak, (height, width, channels), dtype, endpoint=True)
    return DecodedImage(
        pixels, random.integers(0, peak, (height, width), dtype, endpoint=True) if alpha else None, **rest
    )


def doubled(array: np.ndarray) -> np.ndarray:
    return array.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("tile", ["off", 32])
def test_upscale_image_keeps_depth_colors_alpha_and_profile(dtype, channels, alpha, tile, tmp_path):
    """Nearest neighbor changes no value, so every bit must come through, tiled or not."""
    metadata = {"icc": b"a profile", "exif": b"II*\0", "dpi": (300.0, 150.0)}
    image = random_image(50, 37, channels, dtype, alpha, **metadata)
    if alpha:
        image.alpha[image.alpha == 0] = 1  # under alpha 0 colors are replaced, see below
    out = upscaler(Doubler(), tile=tile).upscale_image(image, scratch=tmp_path)
    assert out.pixels.dtype == dtype
    assert np.array_equal(out.pixels, doubled(image.pixels))
    assert {name: getattr(out, name) for name in metadata} == metadata
    assert (out.alpha is None) is not alpha
    if alpha:
        assert np.array_equal(out.alpha, doubled(image.alpha))


def test_upscale_image_is_the_rounded_output(tmp_path):
    net = conv_net()
    image = random_image(20, 33)
    with torch.no_grad():
        expected = tensor_to_pixels(net(image_to_tensor(image))[0])
    out = upscaler(net).upscale_image(image, scratch=tmp_path)
    assert np.abs(out.pixels.astype(int) - expected).max() <= 1
    assert (out.pixels != expected).mean() < 0.001
    assert expected.std() > 5


def test_opaque_alpha_stays_opaque_without_the_model(tmp_path):
    net = Doubler()
    image = random_image(20, 20)
    image = replace(image, alpha=np.full((20, 20), 255, np.uint8))
    out = upscaler(net, tile="off").upscale_image(image, scratch=tmp_path)
    assert net.calls == 1
    assert int(out.alpha.min()) == 255


def test_alpha_stays_within_its_neighborhood(tmp_path):
    """A network that overshoots must not make opaque parts translucent, nor empty parts visible."""
    alpha = np.zeros((24, 24), np.uint8)
    alpha[:, 12:] = 255
    alpha[12, 12] = 90
    out = upscaler(conv_net(), tile="off").upscale_image(replace(random_image(24, 24), alpha=alpha), scratch=tmp_path)
    assert int(out.alpha[:, :22].max()) == 0
    assert int(out.alpha[:20, 26:].min()) == 255
    assert len(np.unique(out.alpha)) > 2


def test_colors_under_transparent_pixels_do_not_bleed(tmp_path):
    """A red disc on transparent black: wherever it shows, the result is red."""
    rows, columns = np.mgrid[:40, :40]
    disc = (rows - 20) ** 2 + (columns - 17) ** 2 < 100
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[disc] = (200, 10, 20)

    class Blur(Doubler):
        def forward(self, x):
            return functional.interpolate(functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False), scale_factor=2)

    alpha = (disc * 255).astype(np.uint8)
    out = upscaler(Blur(), tile="off").upscale_image(DecodedImage(pixels, alpha), scratch=tmp_path)
    shown = out.alpha > 0
    assert shown.sum() > 4 * disc.sum()
    assert np.abs(out.pixels[shown].astype(int) - (200, 10, 20)).max() <= 1
    bled = upscaler(Blur(), tile="off").upscale_image(DecodedImage(pixels), scratch=tmp_path).pixels[shown]
    assert np.abs(bled.astype(int) - (200, 10, 20)).max() > 50


def test_fill_unknown_keeps_known_colors():
    colors = torch.rand(1, 3, 13, 9)
    known = torch.rand(1, 1, 13, 9) > 0.8
    out = fill_unknown(colors, known)
    kept = known.expand_as(colors)
    assert torch.equal(out[kept], colors[kept])
    assert bool((out[~kept] >= colors[kept].min()).all())
    assert bool((out[~kept] <= colors[kept].max()).all())
    assert torch.equal(fill_unknown(colors, known & False), colors)
    assert torch.equal(fill_unknown(colors, known | True), colors)


def test_tiles_are_halved_when_memory_runs_out(tmp_path):
    net = Doubler()
    net.too_large_px = 70
    told = []
    image = random_image(150, 300)
    run = upscaler(net, tile=256, notify=told.append)
    out = run.upscale_image(image, scratch=tmp_path)
    assert np.array_equal(out.pixels, doubled(image.pixels))
    assert told == [
        "Out of memory; continuing with tiles of 128 px.",
        "Out of memory; continuing with tiles of 64 px.",
    ]
    assert net.largest_px <= 64
    calls = net.calls
    run.upscale_image(image, scratch=tmp_path)  # remembers the size that fits
    assert len(told) == 2
    assert net.calls - calls < calls
    expected = functional.interpolate(image_to_tensor(image), scale_factor=2)
    assert torch.allclose(run(image_to_tensor(image)), expected, atol=1e-6)


def test_upscale_image_without_memory_for_a_tile_is_refused(tmp_path):
    net = Doubler()
    net.too_large_px = 5
    image = random_image(150, 300)
    with pytest.raises(InputError) as error:
        upscaler(net, tile=64, notify=lambda _: None).upscale_image(image, scratch=tmp_path)
    assert str(error.value) == (
        "upscale: expected memory for a tile of 32 px, got CUDA out of memory. Tried to allocate 2.00 GiB; "
        "close other programs, or use --device cpu."
    )
    with pytest.raises(
        InputError, match=r"fits into memory without tiles, got CUDA out of memory.*; use --tile auto\.$"
    ):
        upscaler(net, tile="off").upscale_image(image, scratch=tmp_path)


def test_memory_error_of_python_is_out_of_memory(tmp_path):
    class Starved(Doubler):
        def forward(self, x):
            raise MemoryError

    with pytest.raises(InputError, match=r"expected memory for a tile of 32 px, got MemoryError; close"):
        upscaler(Starved(), tile=32).upscale_image(random_image(50, 40), scratch=tmp_path)


def test_other_errors_are_raised_unchanged(tmp_path):
    class Broken(Doubler):
        def forward(self, x):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        upscaler(Broken()).upscale_image(random_image(9, 9), scratch=tmp_path)


def test_auto_tile_is_measured_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(upscale_module, "find_largest_tile_px", lambda *a, **k: asked.append(k) or 64)
    net = Doubler()
    run = upscaler(net, facts={"minimum_px": 16})
    run.upscale_image(random_image(100, 90), scratch=tmp_path)
    assert asked == []  # small: not worth measuring
    assert net.largest_px == 100
    net.largest_px = 0
    for _ in range(2):
        run.upscale_image(random_image(200, 90), scratch=tmp_path)
    assert asked == [{"multiple_px": 1, "minimum_px": 16}]
    assert net.largest_px <= 64


@pytest.mark.parametrize("tiling", ["discouraged", "internal"])
def test_networks_with_global_attention_get_tiles_only_if_needed(tiling, tmp_path):
    net = Doubler()
    told = []
    image = random_image(200, 300)
    run = upscaler(net, facts={"tiling": tiling, "multiple_of_px": 8}, notify=told.append)
    assert np.array_equal(run.upscale_image(image, scratch=tmp_path).pixels, doubled(image.pixels))
    assert net.largest_px == 304
    assert told == []
    net.too_large_px = 200
    assert np.array_equal(run.upscale_image(image, scratch=tmp_path).pixels, doubled(image.pixels))
    assert told == ["Out of memory; continuing with tiles of 144 px."]


def test_large_outputs_use_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr("selfsr.images.large.LARGE_BYTES", 1000)
    image = random_image(60, 40, alpha=True)
    image.alpha[image.alpha == 0] = 1
    out = upscaler(Doubler(), tile=32).upscale_image(image, scratch=tmp_path)
    assert isinstance(out.pixels, np.memmap)
    assert isinstance(out.alpha, np.memmap)
    assert np.array_equal(out.pixels, doubled(image.pixels))
    assert list(tmp_path.iterdir()) == []


def test_ensemble_averages_the_symmetries(tmp_path):
    net = conv_net()
    image = random_image(20, 30)
    ours = upscaler(net, ensemble=True)(image_to_tensor(image))
    with torch.no_grad():
        expected = self_ensemble(lambda x: net(x).clamp(0, 1))(image_to_tensor(image))
    assert torch.allclose(ours, expected, atol=1e-6)
    assert not torch.allclose(ours, upscaler(net)(image_to_tensor(image)), atol=1e-3)


def test_on_tile_counts_tiles(tmp_path):
    seen = []
    upscaler(Doubler(), tile=32, overlap_px=0).upscale_image(
        random_image(64, 96), scratch=tmp_path, on_tile=lambda *a: seen.append(a)
    )
    assert seen == [(k, 6) for k in range(1, 7)]


def native_bfloat16(monkeypatch, native: bool) -> None:
    monkeypatch.setattr(precision_module, "why_not_bfloat16", lambda _: None if native else "it would be emulated")


def test_auto_precision_is_bfloat16_if_native_and_invisible(monkeypatch):
    fine, coarse = conv_net(), offset_net()
    native_bfloat16(monkeypatch, True)
    assert upscaler(fine, precision="auto").precision == "bfloat16"
    assert upscaler(coarse, precision="auto").precision == "float32"  # bfloat16 rounds its hidden values visibly
    assert upscaler(coarse, precision="bfloat16").precision == "bfloat16"
    assert upscaler(fine, precision="auto").describe_precision() == "bfloat16 (float32 for 16-bit images)"
    assert upscaler(coarse, precision="auto").describe_precision() == "float32"
    assert upscaler(coarse, precision="bfloat16").describe_precision() == "bfloat16"
    assert upscaler(fine, precision="auto", facts={"supports_bfloat16": False}).precision == "float32"
    native_bfloat16(monkeypatch, False)
    assert upscaler(fine, precision="auto").precision == "float32"


def test_first_and_last_layers_stay_in_float32_from_outside(monkeypatch):
    native_bfloat16(monkeypatch, True)
    net = conv_net()
    network = CastNetwork(net)
    probe = make_probe(model(net), CPU)
    before = measure_rounding(network, probe, torch.bfloat16)
    upscaler(net, precision="auto")
    assert [isinstance(net[index], Float32Conv2d) for index in (0, 2)] == [True, True]
    after = measure_rounding(network, probe, torch.bfloat16)
    assert after < before / 2
    untouched = conv_net()
    upscaler(untouched, precision="float32")
    assert type(untouched[2]) is nn.Conv2d


def test_16_bit_images_are_upscaled_in_float32(monkeypatch, tmp_path):
    native_bfloat16(monkeypatch, True)
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh(), *conv_net())  # the first and last stay in float32
    exact, auto, half = (upscaler(net, precision=name) for name in ("float32", "auto", "bfloat16"))
    shallow, deep = random_image(16, 16), random_image(16, 16, dtype=np.uint16)
    results = [[run.upscale_image(p, scratch=tmp_path).pixels for run in (exact, auto, half)] for p in (shallow, deep)]
    assert np.array_equal(results[1][0], results[1][1])
    assert not np.array_equal(results[1][0], results[1][2])
    assert np.array_equal(results[0][1], results[0][2])


def test_a_gpu_without_half_precision_is_the_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    gpu = torch.device("cuda")
    assert why_not_float16(gpu) == "the GPU is older than compute capability 7.0"
    assert why_not_bfloat16(gpu) == "compute capability 6.1 has no bfloat16 units"


def test_float32_is_never_tf32(tmp_path):
    class Watched(Doubler):
        def forward(self, x):
            allowed.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().forward(x)

    allowed = []
    run = upscaler(Watched())
    run(torch.rand(1, 3, 8, 8))
    run.upscale_image(random_image(8, 8, dtype=np.uint16), scratch=tmp_path)
    assert len(allowed) >= 2
    assert set(allowed) == {(False, False)}
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("facts", "precision", "message"),
    [
        (
            {},
            "float16",
            "upscale: expected a supported precision, got float16: float16 is for GPUs, the device is the CPU",
        ),
        ({}, "bfloat16", "upscale: expected a supported precision, got bfloat16: it would be emulated"),
    ],
)
def test_unavailable_precision_is_refused(facts, precision, message, monkeypatch):
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


def test_overflow_of_half_precision_continues_in_float32(monkeypatch, tmp_path):
    native_bfloat16(monkeypatch, True)
    told = []
    run = upscaler(Overflows(), precision="bfloat16", notify=told.append)
    image = random_image(10, 12)
    for _ in range(2):
        assert np.array_equal(run.upscale_image(image, scratch=tmp_path).pixels, doubled(image.pixels))
    assert told == ["Tiny leaves the range of bfloat16; continuing in float32."]


def test_broken_model_is_refused(tmp_path):
    net = Overflows()
    net.broken = True
    with pytest.raises(
        InputError,
        match=r"^upscale: expected a finite output of Tiny, got NaN or infinity; use another weights file\.$",
    ):
        upscaler(net).upscale_image(random_image(10, 12), scratch=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 16}, "upscale: expected a tile of auto, off or at least 32 px, got 16; use a larger tile."),
        (
            {"tile": 64, "overlap_px": 33},
            "upscale: expected an overlap from 0 to half of the tile, got 33 px with tile 64; use a smaller overlap.",
        ),
        (
            {"overlap_px": -1},
            "upscale: expected an overlap from 0 to half of the tile, got -1 px with tile auto; use a smaller overlap.",
        ),
    ],
)
def test_wrong_tile_or_overlap_is_refused(options, message):
    with pytest.raises(InputError) as error:
        upscaler(Doubler(), **options)
    assert str(error.value) == message


def test_parse_tile_reads_auto_off_and_numbers():
    assert [parse_tile(text) for text in ("auto", "off", "256")] == ["auto", "off", 256]
    with pytest.raises(
        InputError, match=r"^upscale: expected --tile auto, off or a number of pixels, got '-1'; use one of these\.$"
    ):
        parse_tile("-1")
