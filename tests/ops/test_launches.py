"""Listing launches of Triton kernels, and compiling their kernels in threads; with stand-ins for kernels."""

import re
import threading

import pytest
import torch

from selfsr._ops.launches import KernelFailed, Launch, compile_kernels, drop_duplicates, launch, list_launches

CPU = torch.device("cpu")


class FakeKernel:
    """A kernel that notes what happens to it."""

    def __init__(self, error: Exception | None = None):
        self.error = error
        self.launched: list[tuple] = []
        self.warmed: list[tuple[str, dict]] = []

    @staticmethod
    def fn(image, count, SIZE: int):
        """Image and count are arguments of a launch, SIZE is a constant."""

    def __getitem__(self, grid):
        def run(**arguments):
            if self.error is not None:
                raise self.error
            self.launched.append((grid, arguments))

        return run

    def warmup(self, *, grid, **arguments):
        if self.error is not None:
            raise self.error
        self.warmed.append((threading.current_thread().name, arguments))


def test_a_launch_is_listed_and_not_run_inside_list_launches() -> None:
    kernel = FakeKernel()
    launch(kernel, 3, count=1)
    with list_launches() as launches:
        launch(kernel, 4, count=2)
    launch(kernel, 5, count=3)
    assert kernel.launched == [((3,), {"count": 1}), ((5,), {"count": 3})]
    assert launches == [Launch(kernel, {"count": 2})]


@pytest.mark.parametrize("message", ["Failed to find C compiler.", "Cannot find ptxas; set CUDA_HOME"])
def test_a_kernel_that_does_not_compile_says_so_in_one_line(message: str) -> None:
    with pytest.raises(KernelFailed, match=f"^{re.escape(message)}$"):
        launch(FakeKernel(RuntimeError(message.replace(" ", "\n", 1))), 1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA driver error: device not ready"),
    ],
)
def test_errors_of_the_gpu_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        launch(FakeKernel(error), 1)
    assert raised.value is error


def test_other_threads_launch_while_this_one_lists() -> None:
    kernel = FakeKernel()
    with list_launches() as launches:
        thread = threading.Thread(target=launch, args=(kernel, 1))
        thread.start()
        thread.join()
    assert len(kernel.launched) == 1
    assert launches == []


def test_one_launch_remains_for_each_compiled_kernel() -> None:
    kernel = FakeKernel()
    arguments = {"image": torch.zeros(2), "count": 1, "SIZE": 8, "num_warps": 4}
    same = arguments | {"image": torch.zeros(5), "count": 7}
    others = [
        arguments | {"image": torch.zeros(2, dtype=torch.float64)},
        arguments | {"count": 1.0},
        arguments | {"SIZE": 16},
        arguments | {"num_warps": 8},
    ]
    launches = [Launch(kernel, entry) for entry in (arguments, same, *others)]
    assert drop_duplicates([*launches, *launches]) == [launches[1], *launches[2:]]
    assert len(drop_duplicates([launches[0], Launch(FakeKernel(), arguments)])) == 2


def test_kernels_are_compiled_in_threads_with_the_arguments_of_their_launch() -> None:
    kernels = [FakeKernel() for _ in range(5)]
    advanced: list[str] = []
    launches = [Launch(kernel, {"count": number}) for number, kernel in enumerate(kernels)]
    compile_kernels(launches, CPU, 2, lambda: advanced.append(threading.current_thread().name))
    assert [kernel.warmed[0][1] for kernel in kernels] == [{"count": number} for number in range(5)]
    assert all(kernel.warmed[0][0].startswith("selfsr-triton") for kernel in kernels)
    assert advanced == [threading.current_thread().name] * 5
    assert all(not kernel.launched for kernel in kernels)


def test_the_first_error_is_raised() -> None:
    launches = [Launch(FakeKernel(RuntimeError("no C compiler")), {}), Launch(FakeKernel(), {})]
    with pytest.raises(RuntimeError, match="no C compiler"):
        compile_kernels(launches, CPU, 1)
