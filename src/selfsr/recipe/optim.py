"""The optimizers of a recipe. Those of PyTorch are built in; the others need pytorch-optimizer, imported when built."""

import importlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from selfsr.errors import InputError, describe_value, shorten
from selfsr.spec import Spec

# Parameters with their learning rate, under "params" and "lr".
ParameterGroup = dict[str, Any]
_UnitInterval = Annotated[float, Field(ge=0, lt=1)]
_OpenUnitInterval = Annotated[float, Field(gt=0, lt=1)]
# Far above every useful value. Products with it stay finite in float32 for ordinary weights and gradients.
_LARGEST_VALUE = 1000
_LearningRate = Annotated[float, Field(gt=0, le=_LARGEST_VALUE)]
_Epsilon = Annotated[float, Field(gt=0, le=_LARGEST_VALUE)]
_Betas = tuple[_UnitInterval, _UnitInterval]

_LR = "learning rate before the schedule, at most 1000; lower it if the loss becomes NaN"
_BETAS = "decay rates of the first and second moment of the gradient, in [0, 1)"
_EPS = "added to the root of the second moment; for losses of images in [0, 255] it is 255 times as large"
_DECAY = "factor of the decoupled weight decay; 0 is none"


class GroupSpec(Spec):
    """A learning rate of its own for some parameters."""

    match: str = Field(description='names of the parameters, such as "upsampler.*"; * stands for any characters')
    lr: _LearningRate = Field(description="their learning rate before the schedule")


class _OptimizerSpec(Spec):
    """Base of the optimizers; a subclass adds `kind`, `lr` and `build`."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters, each with its learning rate.

        Raises:
            InputError: a package is missing, or the optimizer refuses its options.
        """
        raise NotImplementedError


class _GroupedSpec(_OptimizerSpec):
    groups: tuple[GroupSpec, ...] = Field(
        (),
        description="learning rates for parameters by name; the first group that matches applies, and lr to the rest. "
        "Use it to train new layers faster than loaded ones",
    )


class AdamSpec(_GroupedSpec):
    """Adam (Kingma and Ba, ICLR 2015), optionally with L2 regularization. Use it to reproduce papers."""

    kind: Literal["adam"] = "adam"
    lr: _LearningRate = Field(1e-4, description=_LR)
    betas: _Betas = Field((0.9, 0.999), description=_BETAS)
    eps: _Epsilon = Field(1e-8, description=_EPS)
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=_LARGEST_VALUE,
        description="factor of the L2 regularization, which is added to the gradient; 0 is none",
    )

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        return torch.optim.Adam(groups, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


class AdamWSpec(_GroupedSpec):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019). The usual choice for new runs."""

    kind: Literal["adamw"] = "adamw"
    lr: _LearningRate = Field(2e-4, description=_LR)
    betas: _Betas = Field((0.9, 0.99), description=_BETAS)
    eps: _Epsilon = Field(1e-8, description=_EPS)
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description=_DECAY)

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


class AdanSpec(_GroupedSpec):
    """Adan, Adam with Nesterov momentum of gradient differences (Xie et al., IEEE TPAMI 2024).

    It bears higher learning rates than Adam. Use it for long runs of transformers or GANs. Needs pytorch-optimizer.
    """

    kind: Literal["adan"] = "adan"
    lr: _LearningRate = Field(1e-3, description=_LR)
    betas: tuple[_UnitInterval, _UnitInterval, _UnitInterval] = Field(
        (0.98, 0.92, 0.99),
        description="decay rates of the gradient, of its differences, and of the second moment, in [0, 1)",
    )
    eps: _Epsilon = Field(1e-8, description=_EPS)
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description=_DECAY)

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        options = self.model_dump(include={"betas", "eps", "weight_decay"})
        return _make(self.kind, "Adan", groups, weight_decouple=True, **options)


class ScheduleFreeAdamWSpec(_GroupedSpec):
    """AdamW that averages its weights instead of lowering the rate (Defazio et al., NeurIPS 2024).

    Use it if the length of a run is not known beforehand: the averaged weights are good at every step. They are
    evaluated and saved, and no other average is kept, so `ema_decay` must be null and the schedule constant. Needs
    pytorch-optimizer.
    """

    kind: Literal["adamw_schedule_free"] = "adamw_schedule_free"
    lr: _LearningRate = Field(1e-3, description=_LR + "; published advice is 1 to 10 times that of AdamW")
    betas: tuple[_OpenUnitInterval, _UnitInterval] = Field(
        (0.9, 0.999),
        description="share of the averaged weights at which the gradient is taken, and decay rate of the second moment",
    )
    eps: _Epsilon = Field(1e-8, description=_EPS)
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description="factor of the weight decay; 0 is none")

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        options = self.model_dump(include={"betas", "eps", "weight_decay"})
        return _make(self.kind, "ScheduleFreeAdamW", groups, **options)


class ProdigySpec(_OptimizerSpec):
    """Adam that estimates its learning rate (Mishchenko and Defazio, ICML 2024).

    Use it if no learning rate is known. It has one rate for all parameters, waits for the device at each step, and
    starts slowly. Needs pytorch-optimizer.
    """

    kind: Literal["prodigy"] = "prodigy"
    lr: float = Field(
        1.0,
        ge=0.1,
        le=_LARGEST_VALUE,
        description="factor of the estimated learning rate, at least 0.1, before the schedule; leave it 1",
    )
    betas: _Betas = Field((0.9, 0.999), description=_BETAS)
    eps: _Epsilon = Field(1e-8, description=_EPS)
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description=_DECAY)
    d_coef: PositiveFloat = Field(
        1.0, description="factor of the estimate itself; 0.5 to 2, lower if training becomes unstable"
    )

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        options = self.model_dump(include={"betas", "eps", "weight_decay", "d_coef"})
        return _make(self.kind, "Prodigy", groups, safeguard_warmup=True, **options)


class SoapSpec(_GroupedSpec):
    """SOAP, Adam in the eigenbasis of Shampoo (Vyas et al., ICLR 2025).

    It needs fewer steps than Adam and more time and memory for each: use it for wide layers and large batches. Its
    first step only measures and moves no weight. Needs pytorch-optimizer.
    """

    kind: Literal["soap"] = "soap"
    lr: _LearningRate = Field(3e-3, description=_LR)
    betas: _Betas = Field((0.95, 0.95), description=_BETAS)
    eps: _Epsilon = Field(1e-8, description=_EPS)
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description=_DECAY)
    precondition_frequency: PositiveInt = Field(
        10, description="steps between updates of the eigenbasis; lower is more exact and slower"
    )

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        options = self.model_dump(include={"betas", "eps", "weight_decay", "precondition_frequency"})
        return _make(self.kind, "SOAP", groups, **options)


class MuonSpec(_GroupedSpec):
    """Muon, momentum with orthogonalized updates (Jordan et al., 2024), for weights with two axes or more.

    Biases and other vectors are trained by AdamW at the same rate; the updates are scaled so that one rate fits both
    (Liu et al., arXiv 2502.16982). Use it for transformers and wide convolutions. Needs pytorch-optimizer.
    """

    kind: Literal["muon"] = "muon"
    lr: _LearningRate = Field(2e-4, description=_LR)
    momentum: _UnitInterval = Field(0.95, description="decay rate of the momentum of matrices, in [0, 1)")
    betas: _Betas = Field((0.9, 0.99), description=_BETAS + ", for vectors")
    eps: _Epsilon = Field(1e-8, description=_EPS + "; for vectors")
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description=_DECAY)

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters, each split into matrices and vectors."""
        of_matrices = self.model_dump(include={"momentum", "weight_decay"})
        of_vectors = self.model_dump(include={"betas", "eps", "weight_decay"})
        split = []
        for group in groups:
            for is_matrix, options in ((True, of_matrices), (False, of_vectors)):
                parameters = [each for each in group["params"] if (each.ndim > 1) is is_matrix]
                if parameters:
                    split.append({"params": parameters, "lr": group["lr"], "use_muon": is_matrix, **options})
        return _make(self.kind, "Muon", split, use_adjusted_lr=True)


class LionSpec(_GroupedSpec):
    """Lion, which moves by the sign of its momentum (Chen et al., NeurIPS 2023).

    It keeps one tensor for each weight instead of Adam's two: use it if memory is short, with a large batch and a third
    to a tenth of AdamW's rate. Needs pytorch-optimizer.
    """

    kind: Literal["lion"] = "lion"
    lr: _LearningRate = Field(5e-5, description=_LR)
    betas: _Betas = Field((0.9, 0.99), description="decay rates of the momentum in the update and after it, in [0, 1)")
    weight_decay: float = Field(0.0, ge=0, le=_LARGEST_VALUE, description=_DECAY)

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        return _make(self.kind, "Lion", groups, **self.model_dump(include={"betas", "weight_decay"}))


class ImportedSpec(_GroupedSpec):
    """Any optimizer class by its name, such as `torch.optim.NAdam`. Use it to try one that has no kind of its own.

    Its module is imported, which runs its code. Before the run it must show on a few numbers that it resumes exactly.
    """

    kind: Literal["import"] = "import"
    path: str = Field(description="the class, with its module, such as pytorch_optimizer.Ranger21")
    lr: _LearningRate = Field(description=_LR)
    options: dict[str, Any] = Field({}, description="its other options, by their names in the class")

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over groups of parameters."""
        optimizer = _import_class(self.path)
        try:
            return optimizer(list(groups), lr=self.lr, **self.options)
        except Exception as error:  # the classes check their options in many ways
            raise InputError(
                f"optimizers: {self.path} must accept its options, got {describe_value(self.options)}, which it "
                f"refuses ({shorten(' '.join(str(error).split()))}); change options."
            ) from error


def _make(kind: str, name: str, groups: Sequence[ParameterGroup], **options: Any) -> torch.optim.Optimizer:
    """Build an optimizer of pytorch-optimizer."""
    try:
        package = importlib.import_module("pytorch_optimizer")
    except ImportError as error:
        raise InputError(
            f"optimizers: kind {kind} needs pytorch-optimizer, got an environment without it; install it with "
            'pip install "selfsr[optimizers]", or choose adam or adamw.'
        ) from error
    return getattr(package, name)(list(groups), **options)


def _import_class(path: str) -> type[Any]:
    """Return the optimizer class at `path`.

    Raises:
        InputError: there is no module, nothing of this name in it, or it is no optimizer.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"optimizers: path must be a class that can be imported, got {describe_value(path)} "
            f"({shorten(str(error))}); install its package, or correct the name."
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise InputError(
            f"optimizers: path must be a subclass of torch.optim.Optimizer, got {describe_value(path)}, which is "
            "none; name another class."
        )
    return found


Optimizer = Annotated[
    AdamSpec
    | AdamWSpec
    | AdanSpec
    | ScheduleFreeAdamWSpec
    | ProdigySpec
    | SoapSpec
    | MuonSpec
    | LionSpec
    | ImportedSpec,
    Field(discriminator="kind"),
]
