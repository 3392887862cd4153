"""ONNX of every network that is written here: it is the network at any size, or is refused with the part."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from own_networks import TINY, nudge
from selfsr.errors import InputError
from selfsr.models.comparison import make_check_image
from selfsr.models.onnx_file import make_onnx
from selfsr.nets.union import OwnNetwork
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.save import save_weights

# The networks that upscale their input first, by bicubic whose weights are computed for its size.
BICUBIC = {"srcnn", "vdsr", "drrn"}

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_own_network_is_tested() -> None:
    assert {type(spec) for spec in TINY.values()} == set(get_args(OwnNetwork))


@pytest.mark.parametrize("name", TINY)
def test_onnx_of_an_own_network_is_the_network_or_is_refused(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    spec = TINY[name]
    torch.manual_seed(7)
    scale = spec.scales[0]
    save_weights(tmp_path / "net.safetensors", nudge(spec.build(scale, spec.channel_counts[-1])), {})
    model = load_model(tmp_path / "net.safetensors", scale)
    if spec.kind in BICUBIC:
        part = r"its symmetric_index in images/resize\.py computes with the size of the input outside of the graph"
        with pytest.raises(InputError, match=rf"^export: --onnx .*, got {spec.title}: {part}; leave --onnx out\.$"):
            make_onnx(model, opset=17, half=False)
        return
    onnx = make_onnx(model, opset=17, half=False)
    assert (onnx.fixed_px, onnx.single) == (None, False)
    session = onnxruntime.InferenceSession(onnx.content, providers=["CPUExecutionProvider"])
    for height, width in ((16, 40), (48, 24)):
        image = make_check_image(model.channels, height, width)
        image = torch.cat([image, image.flip(-1)])
        assert height % onnx.multiple_of_px == width % onnx.multiple_of_px == 0
        (output,) = session.run(None, {"input": image.numpy()})
        with torch.no_grad():
            assert np.abs(output - model.net(image).numpy()).max() < 1e-4, (height, width)
