"""The self-paced operator on a GPU: no host sync, CUDA graphs, another device; and large batches through Triton."""

import pytest
import torch

from selfsr import SelfPacedLoss
from selfsr.pacing import reference


@pytest.fixture
def on_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU: pass --device cuda")


def value_and_gradient(sr, hr, epoch, backend):
    leaf = sr.detach().requires_grad_()
    loss = SelfPacedLoss("l1", backend=backend)(leaf, hr, epoch)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_loss_does_not_synchronize_with_the_host(backend: str, device: torch.device, pair) -> None:
    sr, hr = pair(2, 3, 40, 36)
    epoch = torch.tensor(0.7, device=device)
    value_and_gradient(sr, hr, epoch, backend)  # what is compiled once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value_and_gradient(sr, hr, epoch, backend)
        value_and_gradient(sr, hr, 0.7, backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("on_gpu")
def test_cuda_graph_replays_the_loss_at_another_age(backend: str, device: torch.device, pair) -> None:
    sr, hr = pair(2, 3, 40, 36)
    static, epoch = sr.clone(), torch.tensor(0.7, device=device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        value_and_gradient(static, hr, epoch, backend)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, gradient = value_and_gradient(static, hr, epoch, backend)
    static.copy_(0.9 * sr)
    epoch.fill_(1.5)
    graph.replay()
    expected, expected_gradient = value_and_gradient(0.9 * sr, hr, epoch, backend)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.usefixtures("on_gpu")
def test_device_other_than_the_current_one(backend: str, pair) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    here = [image.to("cuda:0") for image in pair(1, 3, 20, 24)]
    away = [image.to("cuda:1") for image in here]
    with torch.cuda.device(0):
        loss, gradient = value_and_gradient(*away, 0.7, backend)
        expected, expected_gradient = value_and_gradient(*here, 0.7, backend)
    assert loss.device == gradient.device == torch.device("cuda:1")
    torch.testing.assert_close(loss.cpu(), expected.cpu(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.cpu(), expected_gradient.cpu(), rtol=1e-5, atol=1e-9)


@pytest.mark.usefixtures("on_gpu")
def test_batch_of_more_than_2_to_the_31_elements(backend: str, device: torch.device) -> None:
    """The last image of a large batch has the weight that it has alone, and the same bits each time."""
    if backend == "eager":
        pytest.skip("the portable backend's maps would take several times the memory")
    free = torch.cuda.mem_get_info(device)[0]
    if free < 60 * 2**30:
        pytest.skip(f"needs 60 GiB of GPU memory, {free / 2**30:.0f} are free")
    generator = torch.Generator(device).manual_seed(0)
    hr = torch.rand(700, 3, 1024, 1024, device=device, generator=generator)
    sr = torch.rand(700, 3, 1024, 1024, device=device, generator=generator)
    loss, gradient = value_and_gradient(sr, hr, 0.7, backend)
    again, gradient_again = value_and_gradient(sr, hr, 0.7, backend)
    assert torch.equal(loss, again)
    assert torch.equal(gradient, gradient_again)
    x, y = sr[-1:].cpu().double(), hr[-1:].cpu().double()
    slope = (x - y).sign() * reference.weight(reference.ssim(x, y), 0.7) / sr.numel()
    error = (gradient[-1:].cpu() - slope).square().mean() / slope.square().mean()
    assert error.sqrt() <= 6e-6
