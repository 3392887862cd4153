"""The self-paced operator in a training loop: dtypes, layouts, autograd, torch.compile, threads, errors."""

import functools
import threading

import pytest
import torch
from torch import Tensor

from selfsr import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.errors import InputError
from selfsr.losses import charbonnier, l1
from selfsr.pacing.operator import loss_op, ssim_op, weight_op

AGE = 0.7


def value_and_gradient(module: SelfPacedLoss, sr: Tensor, hr: Tensor, epoch: float | Tensor = AGE):
    x = sr.detach().requires_grad_()
    value = module(x, hr, epoch)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


def test_only_sr_gets_a_gradient(backend: str, pair) -> None:
    sr, hr = (image.requires_grad_() for image in pair(1, 3, 20, 20))
    for loss in ("l1", lambda a, b: (a - b).abs()):
        sr.grad = None
        SelfPacedLoss(loss, backend=backend)(sr, hr, AGE).backward()
        assert sr.grad.any()
        assert hr.grad is None


def test_map_and_weight_have_no_gradient(backend: str, pair) -> None:
    sr, hr = (image.requires_grad_() for image in pair(1, 3, 20, 20))
    assert not ssim_map(sr, hr, backend=backend).requires_grad
    assert not self_paced_weight(sr, hr, AGE, backend=backend).requires_grad


def test_scaled_loss_has_a_scaled_gradient(backend: str, pair) -> None:
    sr, hr = pair(2, 3, 20, 20)
    module = SelfPacedLoss("l2", backend=backend)
    _, once = value_and_gradient(module, sr, hr)
    x = sr.requires_grad_()
    (3 * module(x, hr, AGE) + module(x, hr, AGE)).backward()
    torch.testing.assert_close(x.grad, 4 * once)


def test_no_grad_saves_no_tensor(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    module = SelfPacedLoss("l1", backend=backend)
    with torch.no_grad():
        assert not module(sr.clone().requires_grad_(), hr, AGE).requires_grad
    with torch.inference_mode():
        expected = module(sr, hr, AGE).item()
    assert module(sr.requires_grad_(), hr, AGE).item() == expected


def test_forward_saves_one_tensor(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        SelfPacedLoss("l1", backend=backend)(sr.requires_grad_(), hr, AGE)
    assert [t.shape for t in kept] == [sr.shape]


def test_second_derivatives_are_refused(backend: str, pair) -> None:
    sr, hr = pair(1, 1, 12, 12)
    loss = SelfPacedLoss("l2", backend=backend)(sr.requires_grad_(), hr, AGE)
    (gradient,) = torch.autograd.grad(loss, sr, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        gradient.sum().backward()


@pytest.mark.parametrize("loss", ["l1", "l2", "charbonnier"])
def test_callable_equals_the_named_loss(loss: str, backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20, dtype=torch.float64)
    functions = {
        "l1": lambda a, b: (a - b).abs(),
        "l2": lambda a, b: (a - b) ** 2,
        "charbonnier": functools.partial(charbonnier, eps=1e-3),
    }
    by_name = value_and_gradient(SelfPacedLoss(loss, backend=backend), sr, hr)
    by_call = value_and_gradient(SelfPacedLoss(functions[loss], backend=backend), sr, hr)
    torch.testing.assert_close(by_call, by_name, rtol=1e-10, atol=1e-14)
    each = SelfPacedLoss(functions[loss], reduction="none", backend=backend)(sr, hr, AGE)
    torch.testing.assert_close(each, SelfPacedLoss(loss, reduction="none", backend=backend)(sr, hr, AGE))


def test_own_function_is_replaced_by_its_name() -> None:
    assert SelfPacedLoss(l1).loss == "l1"


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_float32(half: torch.dtype, backend: str, pair) -> None:
    sr, hr = pair(1, 3, 30, 20)
    sr = sr.to(half)
    module = SelfPacedLoss("l1", backend=backend)
    value, gradient = value_and_gradient(module, sr, hr)
    expected, expected_gradient = value_and_gradient(module, sr.float(), hr)
    assert value.dtype == torch.float32
    assert value == expected
    assert gradient.dtype == half
    # Small numbers: 1/n of a crop is 0 in float16 unless the division comes last, here with a loss scale.
    x = sr.requires_grad_()
    (module(x, hr, AGE) * 1024).backward()
    torch.testing.assert_close(x.grad.float(), expected_gradient * 1024, rtol=1e-2, atol=1e-4)
    assert ssim_map(sr, hr, backend=backend).dtype == torch.float32


def test_one_float64_image_gives_float64(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    value, gradient = value_and_gradient(SelfPacedLoss("l1", backend=backend), sr, hr.double())
    assert (value.dtype, gradient.dtype) == (torch.float64, torch.float32)


def test_autocast_changes_nothing(backend: str, pair, device: torch.device) -> None:
    sr, hr = pair(1, 3, 40, 30)
    for loss in ("l1", lambda a, b: (a - b).abs()):
        module = SelfPacedLoss(loss, backend=backend)
        expected = value_and_gradient(module, sr, hr)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            result = value_and_gradient(module, sr, hr)
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_low_matmul_precision_changes_nothing(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 40, 30)
    expected = ssim_map(sr, hr, backend=backend)
    former = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(ssim_map(sr, hr, backend=backend), expected)
    finally:
        torch.set_float32_matmul_precision(former)


LAYOUTS = {
    "channels-last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "every second column": lambda t: torch.stack([t, t * 0 + 9], -1).flatten(3)[..., ::2],
    "crop": lambda t: torch.nn.functional.pad(t, (3, 2, 1, 4), value=9.0)[..., 1:-4, 3:-2],
    "reversed channels": lambda t: t.flip(1).contiguous().flip(1),
}


@pytest.mark.parametrize("mixed", [False, True], ids=["both", "only sr"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_change_the_result(layout: str, mixed: bool, backend: str, pair) -> None:
    sr, hr = pair(2, 3, 34, 23)
    module = SelfPacedLoss("l1", backend=backend)
    expected, expected_gradient = value_and_gradient(module, sr, hr)
    changed = LAYOUTS[layout](sr)
    value, gradient = value_and_gradient(module, changed, hr if mixed else LAYOUTS[layout](hr))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=0)
    if layout == "channels-last":
        assert gradient.is_contiguous(memory_format=torch.channels_last)
    s = ssim_map(changed, hr, backend=backend)
    torch.testing.assert_close(s, ssim_map(sr, hr, backend=backend), rtol=0, atol=1e-6)


def test_expanded_images_equal_one_image(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    s = ssim_map(sr.expand(4, -1, -1, -1), hr.expand(4, -1, -1, -1), backend=backend)
    assert torch.equal(s, ssim_map(sr, hr, backend=backend).expand(4, -1, -1, -1))


def test_epoch_tensor_equals_the_number(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    module = SelfPacedLoss("l1", beta=0.25, backend=backend)
    expected = module(sr, hr, 1.5)
    for dtype in (torch.float32, torch.float64, torch.int64):
        age = torch.tensor(1.5 if dtype.is_floating_point else 2, dtype=dtype)
        assert module(sr, hr, age) == (expected if dtype.is_floating_point else module(sr, hr, 2))


def test_empty_batch_has_empty_results(backend: str, device: torch.device) -> None:
    x = torch.empty(0, 3, 8, 8, device=device, requires_grad=True)
    assert ssim_map(x, x, backend=backend).shape == x.shape
    each = SelfPacedLoss("l1", reduction="none", backend=backend)(x, x, AGE)
    each.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.usefixtures("poisoned_memory")
def test_memory_is_written_before_it_is_read(backend: str, pair) -> None:
    # Images of NaN first, so that the memory that comes back from them is poisoned, too.
    sr, hr = pair(2, 3, 150, 140)
    bad = torch.full_like(sr, float("nan"))
    for size in (150, 70, 9):
        x, y, nan = (image[..., :size, :size] for image in (sr, hr, bad))
        for loss in ("l1", "l2", "charbonnier"):
            module = SelfPacedLoss(loss, backend=backend)
            value_and_gradient(module, nan, nan)
            value, gradient = value_and_gradient(module, x, y)
            assert value.isfinite()
            assert gradient.isfinite().all()
        assert self_paced_weight(x, y, AGE, backend=backend).isfinite().all()


def test_results_have_the_same_bits_for_any_number_of_threads(backend: str, pair) -> None:
    sr, hr = pair(3, 3, 150, 140)
    module = SelfPacedLoss("charbonnier", backend=backend)
    expected = value_and_gradient(module, sr, hr)
    former = torch.get_num_threads()
    try:
        for threads in (former, 1, 2, 3):
            torch.set_num_threads(threads)
            result = value_and_gradient(module, sr, hr)
            assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True)), f"{threads} threads"
    finally:
        torch.set_num_threads(former)


def test_python_threads_get_the_same_result(backend: str, pair) -> None:
    sr, hr = pair(2, 3, 100, 90)
    expected = ssim_map(sr, hr, backend=backend)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            if not torch.equal(ssim_map(sr, hr, backend=backend), expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore::selfsr.RangeWarning")  # the step doubles the images
@pytest.mark.parametrize("loss", ["l1", "own"])
def test_torch_compile_makes_one_graph(loss: str, backend: str, pair) -> None:
    sr, hr = pair(1, 3, 24, 20)
    module = SelfPacedLoss((lambda a, b: (a - b).abs()) if loss == "own" else loss, backend=backend)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def step(x: Tensor, y: Tensor, epoch: Tensor) -> Tensor:
        return module(2 * x, 2 * y, epoch) + 1

    compiled = torch.compile(step, backend=count, fullgraph=True)
    for age in (0.5, 0.7, 3.0):
        epoch = torch.tensor(age)
        torch.testing.assert_close(compiled(sr, hr, epoch), step(sr, hr, epoch), rtol=1e-6, atol=0)
    assert len(graphs) == 1
    torch.compiler.reset()


def test_torch_compile_keeps_the_gradient(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 24, 20)
    module = SelfPacedLoss("l2", backend=backend)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for x in (sr, sr.to(memory_format=torch.channels_last)):
        result = value_and_gradient(compiled, x, hr)
        torch.testing.assert_close(result, value_and_gradient(module, x, hr), rtol=1e-6, atol=0)
    torch.compiler.reset()


def test_torch_compile_takes_a_number_as_epoch(backend: str, pair) -> None:
    sr, hr = pair(1, 1, 12, 12)
    module = SelfPacedLoss("l1", backend=backend)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for age in (0.5, 0.7, 3.0):
        torch.testing.assert_close(compiled(sr, hr, age), module(sr, hr, age), rtol=1e-6, atol=0)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operators_pass_opcheck(backend: str, pair) -> None:
    sr, hr = pair(1, 2, 12, 9)
    options = (1e-4, 9e-4, "zero")
    sigma = torch.tensor(0.7, device=sr.device)
    torch.library.opcheck(ssim_op, (sr, hr, *options, backend))
    torch.library.opcheck(weight_op, (sr, hr, sigma, *options, 2.0, backend))
    x = sr.clone().requires_grad_()
    # Not its fourth check, which differentiates the gradient; test_torch_compile_keeps_the_gradient covers it.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (x, hr, sigma, *options, 2.0, "l1", 1e-3, "mean", True, backend)
    torch.library.opcheck(loss_op, arguments, test_utils=checks)


IMAGE = torch.rand(1, 3, 16, 16)
MISTAKES = {
    "shape": (lambda: ssim_map(IMAGE, IMAGE[..., 1:]), "x and y must have one shape, got [1, 3, 16, 16] and"),
    "one image": (lambda: ssim_map(IMAGE[0], IMAGE[0]), "add the batch axis with x[None]"),
    "integers": (lambda: self_paced_weight(IMAGE.byte(), IMAGE.byte(), 1), "pass sr.float() / 255"),
    "no tensor": (lambda: SelfPacedLoss()(IMAGE.numpy(), IMAGE, 1), "sr must be a torch.Tensor, got ndarray"),
    "range": (lambda: ssim_map(IMAGE, IMAGE, data_range=0), "data_range must be greater than 0, got 0"),
    "infinite range": (lambda: SelfPacedLoss(data_range=float("inf")), "data_range must be greater than 0, got inf"),
    "padding": (lambda: ssim_map(IMAGE, IMAGE, padding="reflct"), "got 'reflct'; did you mean 'reflect'?"),
    "padding of the loss": (lambda: SelfPacedLoss(padding="same"), "one of zero, reflect, replicate, got 'same'"),
    "backend": (lambda: ssim_map(IMAGE, IMAGE, backend="cuda"), "backend must be one of auto, cpu, triton, eager"),
    "backend of the loss": (lambda: SelfPacedLoss(backend="gpu")(IMAGE, IMAGE, 1), "got 'gpu'"),
    "loss": (lambda: SelfPacedLoss("charbonier"), "got 'charbonier'; did you mean 'charbonnier'?"),
    "reduction": (lambda: SelfPacedLoss(reduction="sum"), "reduction must be one of mean, none, got 'sum'"),
    "alpha": (lambda: SelfPacedLoss(alpha=-1), "alpha must be at least 0, got -1"),
    "beta": (lambda: self_paced_weight(IMAGE, IMAGE, 1, beta=-0.5), "beta must be at least 0, got -0.5"),
    "peak": (lambda: SelfPacedLoss(peak=0), "peak must be greater than 0, got 0"),
    "epoch": (lambda: SelfPacedLoss()(IMAGE, IMAGE, -1), "epoch must be at least 0, got -1"),
    "nan epoch": (lambda: self_paced_weight(IMAGE, IMAGE, float("nan")), "epoch must be at least 0, got nan"),
    "epochs": (lambda: SelfPacedLoss()(IMAGE, IMAGE, torch.ones(2)), "a number or a scalar tensor, got shape [2]"),
    "eps alone": (lambda: SelfPacedLoss("l1", eps=0.1), "eps is an option of loss='charbonnier', got loss='l1'"),
    "eps": (lambda: SelfPacedLoss("charbonnier", eps=0), "eps must be greater than 0, got 0"),
    "own loss": (
        lambda: SelfPacedLoss(torch.nn.functional.l1_loss)(IMAGE, IMAGE, 1),
        "must return one value for each element, [1, 3, 16, 16], got []",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_raises_one_sentence(name: str) -> None:
    call, expected = MISTAKES[name]
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert expected in message
    assert message.count("\n") == 0
    assert message[-1] in ".?"
    assert message.split(":")[0] in ("ssim_map", "self_paced_weight", "SelfPacedLoss")


def test_repr_shows_the_options() -> None:
    text = repr(SelfPacedLoss("l2", peak=3.0))
    assert "loss=l2" in text
    assert "peak=3.0" in text
