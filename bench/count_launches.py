"""Count the kernels that training steps would launch on a GPU, on any machine.

    python bench/count_launches.py [--case edsr --case esrgan] [--precision bfloat16] [--by-operation 20]

The second step of a run is taken on the CPU with one crop, and each operator that reaches the dispatcher is counted as
the kernels that CUDA launches for it: none for views and allocations, two for a convolution with a bias and four for
its gradient, and for an operator over lists of tensors as many as `multi_tensor_apply` needs. Optimizers and the norm
of gradients take the forms of a GPU. Our own operators count by what their eager backend does.

The count is an estimate for comparing versions: cuDNN may split or join kernels, which only a profiler on a GPU shows
(bench/gpu.py).
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import steps
from selfsr.runfolder.log import Meter
from selfsr.step import Clock
from selfsr.training import assemble
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step

# Limits of ATen's multi_tensor_apply: tensors per launch by the number of lists, blocks per launch, values per block.
TENSORS_PER_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
BLOCKS_PER_LAUNCH = 320
VALUES_PER_BLOCK = 65536
# Operators that start no kernel: they allocate, or make another view of the same memory without saying so.
FREE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "_reshape_alias",
        "detach", "alias", "lift_fresh", "sym_size", "sym_stride", "sym_numel", "is_same_size", "set_", "promote_types",
        "_record_function_enter_new", "_record_function_exit", "_local_scalar_dense"}  # fmt: skip
# Operators that start several kernels.
SEVERAL = {"convolution_backward": 4}


class LaunchCounter(TorchDispatchMode):
    """Count the launches of all operators inside the context.

    Attributes:
        launches: by the name of the operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count its launches."""
        name = func._schema.name.split("::")[-1]
        self.launches[name] += count_operator(func, name, args)
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """All launches."""
        return self.launches.total()


def count_operator(func: Any, name: str, args: Iterable[Any]) -> int:
    """Return the number of kernels that one call of an operator launches."""
    returns = func._schema.returns
    is_view = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
    if is_view or name in FREE:
        return 0
    if name == "convolution":
        _, _, bias, *_ = args
        return 1 if bias is None else 2
    if name.startswith(("_foreach_", "_fused_")):
        lists = [values for values in args if isinstance(values, list) and values and isinstance(values[0], Tensor)]
        # A fused optimizer reads its numbers of steps aside.
        count = len(lists) - 1 if name.startswith("_fused_") else len(lists) + _out_of_place(name)
        launches = count_list_launches([tensor.numel() for tensor in lists[0]], count)
        # The norm has a second kernel, which adds the sums of the blocks.
        return 2 * launches if name == "_foreach_norm" else launches
    return SEVERAL.get(name, 1)


def _out_of_place(name: str) -> int:
    return 0 if name.endswith("_") or name == "_foreach_norm" else 1


def count_list_launches(sizes: list[int], lists: int) -> int:
    """Return the launches of `multi_tensor_apply` over `lists` lists of tensors with `sizes` values."""
    limit = TENSORS_PER_LAUNCH[min(lists, 5)]
    launches = tensors = blocks = 0
    for size in sizes:
        tensors += 1
        remaining = -(-size // VALUES_PER_BLOCK)
        while remaining:
            remaining, blocks = remaining - 1, blocks + 1
            if blocks == BLOCKS_PER_LAUNCH or (tensors == limit and not remaining):
                launches, blocks = launches + 1, 0
                tensors = 1 if remaining else 0
    return launches + (blocks > 0)


@contextmanager
def take_gpu_forms() -> Iterator[None]:
    """Let PyTorch choose the forms over lists of tensors as it does on a GPU."""
    import torch.optim.adam as adam
    from torch.nn.utils import clip_grad

    def supports_lists(*_: Any) -> bool:
        return True

    with (
        mock.patch.object(clip_grad, "_has_foreach_support", supports_lists),
        mock.patch.object(clip_grad, "_device_has_foreach_support", supports_lists),
        mock.patch.object(adam, "_default_to_fused_or_foreach", return_value=(False, True)),
        mock.patch.object(assemble, "fuse_optimizer", partial(assemble.fuse_optimizer, devices=("cpu",))),
    ):
        yield


def shrink(case: steps.Case, channels: int) -> steps.Case:
    """Return a case with as many layers as before, of `channels` channels, on small crops.

    It launches as many kernels, except over lists of tensors, where large tensors need a few more.
    """
    network, method = dict(case.settings["network"]), dict(case.method)
    network["features"] = channels
    if discriminators := method.get("discriminators"):
        small = {"features": channels, "stages": 5}  # of 32 px; ESRGAN has as many, of 128 px
        method["discriminators"] = {
            name: {**discriminator, "network": {**discriminator["network"], **small}}
            for name, discriminator in discriminators.items()
        }
    return replace(case, settings=case.settings | {"network": network, "crop_px": 32}, method=method)


def count_step(case: steps.Case, folder: Path, **changes: Any) -> LaunchCounter:
    """Return the launches of the second step of a case, with the first crops of its batch.

    Args:
        case: the network and the losses.
        folder: folder with images and weights.
        changes: changes to the recipe.
    """
    case = replace(case, settings=case.settings | {"batch": min(2, case.settings["batch"])})
    meter, guard, counter = Meter(), FiniteGuard(), LaunchCounter()
    first = steps.EPOCH * steps.STEPS_PER_EPOCH
    with take_gpu_forms():
        run, batches = steps.start_run(case, folder, "cpu", **changes)
        take_step(run, batches, Clock(first, steps.STEPS_PER_EPOCH, 10**6), meter, guard)
        with counter:
            take_step(run, batches, Clock(first + 1, steps.STEPS_PER_EPOCH, 10**6), meter, guard)
    return counter


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=steps.CASES, help="case to count; repeatable (default: all)")
    parser.add_argument("--precision", default="bfloat16", help="precision of the recipe (default bfloat16)")
    parser.add_argument("--by-operation", type=int, default=0, help="also print this many operators with most launches")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = steps.write_photo(Path(name))
        steps.write_random_vgg(folder)
        for key in arguments.case or ("edsr", "rrdb", "esrgan"):
            counter = count_step(steps.CASES[key], folder, precision=arguments.precision)
            print(f"{key} {arguments.precision}: {counter.total:,} launches")
            for operation, launches in counter.launches.most_common(arguments.by_operation):
                print(f"  {launches:6,} {operation}")


if __name__ == "__main__":
    main()
