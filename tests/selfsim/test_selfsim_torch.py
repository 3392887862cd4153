"""The operator with the rest of torch: dtypes, layouts, autocast, compile, export, devices."""

import re

import pytest
import torch
from selfsim_cases import OPTIONS, TINY, Case, images
from selfsim_tolerances import TOLERANCES, relative_error

from interpreter import is_interpreted
from selfsr import SelfSimilarityLoss, self_similarity_graph, self_similarity_loss
from selfsr._ops import register
from selfsr.selfsim.operator import graph_backward_op, graph_op, loss_op


@pytest.fixture
def pair(device, backend):
    sr, hr, mask = images(TINY[0])
    return sr.float().to(device), hr.float().to(device), mask.to(device)


def value_and_gradient(sr, hr, mask, **options):
    sr = sr.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = self_similarity_loss(sr, hr, mask, **{**OPTIONS, **options})
    (gradient,) = torch.autograd.grad(loss, sr)
    return loss.detach(), gradient


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_computed_in_float32(half, pair, backend):
    sr, hr, mask = pair[0].to(half), pair[1].to(half), pair[2]
    wanted, wanted_gradient = value_and_gradient(sr.float(), hr.float(), mask, backend=backend)
    loss, gradient = value_and_gradient(sr, hr, mask, backend=backend)
    assert loss.dtype == torch.float32
    assert gradient.dtype == half
    assert torch.equal(loss, wanted)
    assert torch.equal(gradient, wanted_gradient.to(half))


def test_images_of_two_dtypes_are_computed_in_the_wider(pair, backend):
    sr, hr, mask = pair
    loss, _ = value_and_gradient(sr.bfloat16(), hr, mask, backend=backend)
    assert torch.equal(loss, value_and_gradient(sr.bfloat16().float(), hr, mask, backend=backend)[0])


def test_autocast_changes_nothing(pair, backend, device):
    wanted, wanted_gradient = value_and_gradient(*pair, backend=backend)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss, gradient = value_and_gradient(*pair, backend=backend)
        graph = self_similarity_graph(pair[0], pair[2], backend=backend, **OPTIONS)
    assert loss.dtype == graph.dtype == torch.float32
    assert torch.equal(loss, wanted)
    assert torch.equal(gradient, wanted_gradient)


def test_any_memory_layout_gives_the_same_bits(pair, backend):
    sr, hr, mask = pair
    wanted, wanted_gradient = value_and_gradient(*pair, backend=backend)
    wide = torch.zeros(*sr.shape[:3], 2 * sr.shape[3], device=sr.device)
    wide[..., ::2] = sr
    layouts = {
        "channels last": sr.to(memory_format=torch.channels_last),
        "every second column": wide[..., ::2],
        "transposed": sr.mT.contiguous().mT,
        "expanded": sr,
    }
    for name, layout in layouts.items():
        leaf = layout.detach().requires_grad_()
        loss = self_similarity_loss(leaf, hr.to(memory_format=torch.channels_last), mask, backend=backend, **OPTIONS)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert torch.equal(loss.detach(), wanted), name
        assert torch.equal(gradient, wanted_gradient), name
    expanded = sr[:, :1].expand(-1, 3, -1, -1)
    loss, gradient = value_and_gradient(expanded, hr, mask, backend=backend)
    assert torch.equal(gradient, value_and_gradient(expanded.contiguous(), hr, mask, backend=backend)[1])


def test_inputs_are_not_changed(pair, backend):
    before = [tensor.clone() for tensor in pair]
    value_and_gradient(*pair, backend=backend)
    self_similarity_graph(pair[0], pair[2], backend=backend, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(before, pair, strict=True))


def test_gradient_goes_to_sr_only(pair, backend):
    sr, hr, mask = pair
    sr, hr = sr.requires_grad_(), hr.requires_grad_()
    self_similarity_loss(sr, hr, mask, backend=backend, **OPTIONS).backward()
    assert sr.grad is not None
    assert hr.grad is None


def test_gradient_is_scaled_by_later_operations(pair, backend):
    sr, hr, mask = pair
    _, gradient = value_and_gradient(sr, hr, mask, backend=backend)
    leaf = sr.clone().requires_grad_()
    loss = self_similarity_loss(2 * leaf - leaf.detach(), hr, mask, backend=backend, **OPTIONS)
    (5 * loss**2).backward()
    torch.testing.assert_close(leaf.grad, 2 * 10 * loss.detach() * gradient)


def test_without_grad_no_gradient_is_computed(pair, backend, monkeypatch):
    sr, hr, mask = pair
    from selfsr.selfsim import operator

    with_gradient = []
    compute = operator.loss_and_gradient
    monkeypatch.setattr(operator, "loss_and_gradient", lambda *args: with_gradient.append(args[6]) or compute(*args))
    with torch.no_grad():
        assert not self_similarity_loss(sr.requires_grad_(), hr, mask, backend=backend, **OPTIONS).requires_grad
    assert not self_similarity_loss(sr.detach(), hr, mask, backend=backend, **OPTIONS).requires_grad
    assert self_similarity_loss(sr, hr, mask, backend=backend, **OPTIONS).requires_grad
    assert with_gradient == [False, False, True]


def test_second_derivative_raises(pair, backend):
    sr, hr, mask = pair
    sr.requires_grad_()
    loss = self_similarity_loss(sr, hr, mask, backend=backend, **OPTIONS)
    (gradient,) = torch.autograd.grad(loss, sr, create_graph=True)
    sentence = "self_similarity_loss has no second derivatives; do not differentiate its gradient."
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        gradient.square().sum().backward()


def test_checkpointing_gives_the_same_bits(pair, backend):
    from torch.utils.checkpoint import checkpoint

    sr, hr, mask = pair
    _, wanted = value_and_gradient(sr, hr, mask, backend=backend)
    leaf = sr.clone().requires_grad_()
    loss = checkpoint(
        lambda image: self_similarity_loss(image, hr, mask, backend=backend, **OPTIONS), leaf, use_reentrant=False
    )
    loss.backward()
    assert torch.equal(leaf.grad, wanted)


def test_torch_library_accepts_the_operators(pair, backend):
    sr, hr, mask = pair
    common = (*OPTIONS.values(), True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    options = (*common, 1.0, 1.0, True, backend, 256.0, None, mask.sum((1, 3)))
    torch.library.opcheck(loss_op, (sr.clone().requires_grad_(), hr, mask, *options), test_utils=tests)
    # With a gradient this check would ask for the derivative of the second output, which is the gradient itself.
    torch.library.opcheck(loss_op, (sr, hr, mask, *options), test_utils="test_aot_dispatch_dynamic")
    graph = self_similarity_graph(sr, mask, backend=backend, **OPTIONS)
    torch.library.opcheck(graph_op, (sr, mask, *common, backend, 256.0), test_utils=tests)
    arguments = (torch.ones_like(graph), graph, sr, mask, *common, backend, 256.0)
    torch.library.opcheck(graph_backward_op, arguments, test_utils=tests)


def step(sr, hr, mask, backend):
    blurred = torch.nn.functional.avg_pool2d(sr, 3, 1, 1)
    return self_similarity_loss(blurred, hr, mask, backend=backend, **OPTIONS) + blurred.mean()


@pytest.mark.compile
@pytest.mark.parametrize("with_mask", [True, False])
def test_compile_sees_one_opaque_node(with_mask, pair, backend):
    sr, hr, mask = pair
    mask = mask if with_mask else None
    eager_leaf, compiled_leaf = sr.clone().requires_grad_(), sr.clone().requires_grad_()
    wanted = step(eager_leaf, hr, mask, backend)
    wanted.backward()
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    loss = compiled(compiled_leaf, hr, mask, backend)
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(compiled_leaf.grad, eager_leaf.grad)
    with torch.no_grad():
        torch.testing.assert_close(compiled(compiled_leaf, hr, mask, backend), wanted)


@pytest.mark.compile
def test_compile_does_not_trace_into_an_operator():
    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    compiled = torch.compile(lambda x: register._hide_from_dynamo(torch.sin)(x.cos()), backend=keep)
    x = torch.ones(3)
    assert torch.equal(compiled(x), x.cos().sin())
    assert any("cos" in graph for graph in graphs)
    assert not any("sin" in graph.replace("cos", "") for graph in graphs)
    torch._dynamo.reset()


@pytest.mark.compile
def test_export_sees_one_opaque_node(pair, backend):
    sr, hr, mask = pair
    module = SelfSimilarityLoss(backend=backend, **OPTIONS)
    program = torch.export.export(module, (sr, hr, mask))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("selfsr.self_similarity_loss.default") == 1
    assert torch.equal(program.module()(sr, hr, mask), module(sr, hr, mask))


def test_deterministic_mode_gives_the_same_bits(pair, backend):
    wanted = value_and_gradient(*pair, backend=backend)
    torch.use_deterministic_algorithms(True)
    try:
        result = value_and_gradient(*pair, backend=backend)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(result[0], wanted[0])
    assert torch.equal(result[1], wanted[1])


def test_inference_mode_gives_the_same_loss(pair, backend):
    sr, hr, mask = pair
    wanted, _ = value_and_gradient(sr, hr, mask, backend=backend)
    with torch.inference_mode():
        assert torch.equal(self_similarity_loss(sr, hr, mask, backend=backend, **OPTIONS), wanted)


def test_gradient_descent_reduces_the_loss(backend, device):
    """Gradient descent on the pixels themselves brings the graphs together."""
    if backend == "triton" and is_interpreted():
        pytest.skip("the interpreter would take too long")
    sr, hr, mask = images(Case(1, 1, 12, 12, 7, 3, 0.05))
    sr, hr, mask = sr.float().to(device).requires_grad_(), hr.float().to(device), mask.to(device)
    optimizer = torch.optim.Adam([sr], lr=2e-3)
    losses = []
    for _ in range(60):
        loss = 1000 * self_similarity_loss(sr, hr, mask, backend=backend, **OPTIONS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_with_max_pixels_the_host_never_waits(pair, backend, device):
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    mask = pair[2]
    value_and_gradient(*pair, backend=backend, max_pixels=mask.numel())  # what is compiled once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value_and_gradient(*pair, backend=backend, max_pixels=mask.numel())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_graph_replays_loss_and_gradient(pair, backend, device):
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    sr, hr, mask = pair
    static, options = sr.clone(), {"backend": backend, "max_pixels": mask.numel()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        value_and_gradient(static, hr, mask, **options)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, gradient = value_and_gradient(static, hr, mask, **options)
    static.copy_(0.9 * sr)
    graph.replay()
    wanted, wanted_gradient = value_and_gradient(0.9 * sr, hr, mask, **options)
    assert torch.equal(loss, wanted)
    assert torch.equal(gradient, wanted_gradient)


def test_gpu_that_is_not_current_gives_the_same_loss(backend, device):
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    sr, hr, mask = (tensor.to("cuda:1") for tensor in images(TINY[0]))
    loss, gradient = value_and_gradient(sr, hr, mask, backend=backend)
    on_first_gpu = value_and_gradient(*(tensor.to("cuda:0") for tensor in (sr, hr, mask)), backend=backend)
    assert loss.device == gradient.device == torch.device("cuda:1")
    assert relative_error(gradient.cpu(), on_first_gpu[1].cpu()) <= TOLERANCES[torch.float64].gradient
