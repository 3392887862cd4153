"""Compile the Triton kernels of a run's losses before its first step.

Otherwise they would be compiled one after another in that step, which would stand still for a minute or more.
"""

import os

import torch
from accelerate import Accelerator

from selfsr._ops import backends
from selfsr._ops.launches import (
    Launch,
    compile_kernels,
    describe_kernel_failure,
    drop_duplicates,
    list_launches,
)
from selfsr.console import print_line, progress_bar
from selfsr.errors import InputError, describe_exception
from selfsr.machine.distributed import is_first_process, share_with_all
from selfsr.recipe import Recipe
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.similarity import SelfSimilarityTerm

# Share of masked pixels for which kernels are compiled. It decides into how many pieces a batch is cut, and so which of
# few panel widths occur; one that occurs later is compiled then.
_DENSITY = 0.2


def prepare_kernels(recipe: Recipe, accelerator: Accelerator) -> None:
    """Compile the kernels of the recipe's losses in threads, with a progress bar.

    If a kernel does not compile in one of the processes, the losses with `backend: auto` use eager in all of them, and
    the first process prints the reason.

    Raises:
        InputError: a kernel does not compile, and a term has `backend: triton`.
    """
    failure = _try_to_compile(recipe, accelerator)
    failures = [reason for reason in share_with_all(lambda: failure) if reason is not None]
    if failures:
        _use_eager(recipe, failures[0])


def _try_to_compile(recipe: Recipe, accelerator: Accelerator) -> str | None:
    """Compile the kernels where Triton runs; return the reason if one fails."""
    device = accelerator.device
    if backends.why_not_triton(torch.empty(0, device=device)) is not None or device.type == "cpu":
        return None
    launches = list_step_launches(recipe, device, accelerator.num_processes)
    if not launches:
        return None
    # The other processes of a machine find the kernels in the cache on the disk.
    with accelerator.local_main_process_first():
        try:
            if accelerator.is_local_main_process:
                with progress_bar("compiling GPU kernels", len(launches)) as advance:
                    compile_kernels(launches, device, os.cpu_count() or 1, advance)
            else:
                compile_kernels(launches, device, 1)
        except Exception as error:  # whatever Triton, LLVM, the assembler or a missing C compiler raises
            return describe_exception(error)
    return None


def list_step_launches(recipe: Recipe, device: torch.device, processes: int) -> list[Launch]:
    """Return one launch for each Triton kernel of the losses of a training step; run none."""
    images = max(1, recipe.batch // (processes * recipe.accumulate))
    launches: list[Launch] = []
    for crop_px in recipe.crops_px.values():
        generator = torch.Generator().manual_seed(0)
        hr = torch.rand(images, recipe.data.channels, crop_px, crop_px, generator=generator)
        mask = torch.rand(images, 1, crop_px, crop_px, generator=generator) < _DENSITY
        batch = Batch(hr, hr, mask).to(device)
        outputs = Outputs(batch.hr.flip(0).requires_grad_())
        clock = Clock(1, recipe.steps_per_epoch, recipe.steps)
        for term in recipe.method.terms.values():
            if isinstance(term, SelfSimilarityTerm) or getattr(term, "pace", None) is not None:
                with list_launches() as listed:
                    term(outputs, batch, clock)
                launches += listed
    return drop_duplicates(launches)


def _use_eager(recipe: Recipe, reason: str) -> None:
    reason = describe_kernel_failure(reason)
    for name, term in recipe.method.terms.items():
        if getattr(term, "backend", None) == "triton":
            raise InputError(
                f"method.terms.{name}: backend 'triton' cannot run because {reason}; set backend to auto or eager."
            )
    backends.refuse("triton", reason)
    if is_first_process():
        print_line(f"GPU kernels: {reason}; the losses use the backend eager, which is slower")
