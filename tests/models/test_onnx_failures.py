"""A network that cannot be written as ONNX is refused with its part, also if PyTorch's exporter crashes."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from architectures import build
from selfsr.errors import InputError
from selfsr.models.comparison import choose_sizes
from selfsr.models.onnx_file import check_onnx, make_onnx
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.save import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
onnxruntime = pytest.importorskip("onnxruntime")


def save_and_load(net: torch.nn.Module, folder: Path) -> Model:
    save_weights(folder / "net.safetensors", net, {})
    return load_model(folder / "net.safetensors")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs processes that can be copied")
def test_a_crash_of_the_exporter_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_and_load(CompactSpec(features=8, convs=1).build(2), tmp_path)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    sentence = (
        r"^export: --onnx expected a network whose parts ONNX has, got Compact: PyTorch's exporter crashed "
        r"\(SIGKILL\); leave --onnx out\.$"
    )
    with pytest.raises(InputError, match=sentence):
        make_onnx(model, opset=17, half=False)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs processes that can be copied")
def test_a_crash_with_sizes_that_vary_leaves_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_and_load(CompactSpec(features=8, convs=1).build(2), tmp_path)
    export = torch.onnx.export

    def crash(*arguments: Any, dynamic_axes: dict[str, dict[int, str]], **options: Any) -> None:
        if 2 in dynamic_axes["input"]:
            os.kill(os.getpid(), signal.SIGKILL)
        export(*arguments, dynamic_axes=dynamic_axes, **options)

    monkeypatch.setattr(torch.onnx, "export", crash)
    onnx = make_onnx(model, opset=17, half=False)
    assert (onnx.fixed_px, onnx.reason) == ((64, 64), "PyTorch's exporter crashed (SIGKILL)")


@pytest.mark.parametrize(
    ("name", "half", "part"),
    [
        ("SAFMN", False, ": its adaptive pooling in safmn.py cannot be written, since output_size is not constant"),
        ("KBNet_s", True, ": its forward in spandrel's kbnet_s.py mixes float32 and float16"),
        ("AuraSR", False, ", which draws noise"),
    ],
)
def test_the_sentence_names_the_part(
    name: str, half: bool, part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = save_and_load(build(name), tmp_path)
    option = "--onnx-half" if half else "--onnx"

    def export() -> None:
        check_onnx(model, 17)
        make_onnx(model, opset=17, half=half)

    with pytest.raises(InputError, match=rf"^export: .*, got {name}{re.escape(part)}; leave {option} out\.$"):
        export()
    assert capfd.readouterr() == ("", ""), "the exporter printed its graph"


def test_a_file_chooses_experts_by_the_image_and_accepts_one_image(tmp_path: Path) -> None:
    net = build("SeemoRe").eval()
    gate = next(module for name, module in net.named_modules() if name.endswith(".gate"))
    noise = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images = (noise, 0.1 * torch.ones(1, 3, 24, 24))
    features, chosen = [], []
    handle = gate.register_forward_hook(lambda _module, inputs, _scores: features.append(inputs[0].mean((0, 2, 3))))
    with torch.no_grad():
        for image in images:
            net(image)
        # The first expert for one image and the second for the other.
        first, second = (feature / feature.norm() for feature in features)
        linear = next(module for module in gate.modules() if isinstance(module, torch.nn.Linear))
        linear.weight.copy_(torch.stack([first - second, second - first]))
    handle.remove()
    gate.register_forward_hook(lambda _module, _inputs, scores: chosen.append(int(scores.argmax())))

    onnx = make_onnx(save_and_load(net, tmp_path), opset=17, half=False)
    assert onnx.single
    session = onnxruntime.InferenceSession(onnx.content, providers=["CPUExecutionProvider"])
    for image in images:
        with torch.no_grad():
            expected = net(image).numpy()
        (output,) = session.run(None, {"input": image.numpy()})
        assert np.abs(output - expected).max() < 1e-4
    assert chosen == [0, 1]


def test_a_network_of_a_large_multiple_is_compared_at_two_sizes() -> None:
    facts: dict[str, Any] = {"tiling": "supported", "minimum_px": 1, "supports_half": False, "supports_bfloat16": True}
    net = torch.nn.Identity()
    for multiple, square, sizes in (
        (1, False, ((24, 32), (33, 47), (61, 40))),
        (128, False, ((128, 128), (128, 256))),
        (128, True, ((128, 128), (256, 256))),
    ):
        model = Model(net, "identity", 1, 3, multiple_of_px=multiple, square=square, **facts)
        assert choose_sizes(model) == sizes
    assert choose_sizes(model, varied=True) == ((128, 128), (256, 256))
