"""One discriminator of adversarial training: its options, the generator's loss against it, and its own update."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.losses.adversarial import (
    AdversarialForm,
    AdversarialObjective,
    discriminator_losses,
    generator_loss,
    gradient_penalty,
    r1_penalty,
)
from selfsr.losses.best_buddy import FLAT_WINDOW_PX, flat_mask
from selfsr.losses.gradient import gradient_map
from selfsr.machine.distributed import mean_over_processes
from selfsr.nets.discriminators.union import DiscriminatorNetwork
from selfsr.spec import Spec
from selfsr.step import Clock, Update


class DiscriminatorSpec(Spec):
    """A discriminator: its network, its input, its losses, and its weight in the generator's loss."""

    network: DiscriminatorNetwork
    start_from: Path | None = Field(
        None, description="weights file from which the discriminator starts; null starts from random weights"
    )
    input: Literal["image", "gradient"] = Field(
        "image", description="image: the images themselves; gradient: their gradient maps, as in SPSR"
    )
    region_aware: bool = Field(
        False, description="hide flat regions of the ground truth from the discriminator, as in Beby-GAN"
    )
    objective: AdversarialObjective = Field(
        "vanilla", description="adversarial loss; vanilla is binary cross-entropy, as in most SR papers"
    )
    form: AdversarialForm = Field(
        "relativistic",
        description="standard: score each image by itself; relativistic: score it against the mean of the other class, "
        "as in ESRGAN",
    )
    weight: PositiveFloat = Field(description="weight of the adversarial loss in the generator's loss")
    r1_weight: PositiveFloat | None = Field(
        None,
        description="weight (gamma) of the R1 penalty on ground truths; set it if the discriminator becomes too strong",
    )
    r1_every_steps: PositiveInt | None = Field(
        None,
        description="compute the R1 penalty only in every n-th step, multiplied by n (lazy regularization); null is 1",
    )
    gradient_penalty_weight: PositiveFloat | None = Field(
        None,
        description="weight (lambda) of the WGAN-GP penalty between ground truths and outputs; 10 is usual with "
        "objective wasserstein",
    )

    @model_validator(mode="after")
    def _check_objective(self) -> "DiscriminatorSpec":
        if self.objective == "wasserstein" and self.form == "relativistic":
            raise ValueError(
                "form must be standard for the wasserstein objective, which compares means already, got relativistic"
            )
        if self.objective == "wasserstein" and not self.penalized:
            raise ValueError(
                "the wasserstein objective needs gradient_penalty_weight or r1_weight, got neither: "
                "nothing would bound the discriminator; set gradient_penalty_weight, usually to 10"
            )
        if self.r1_every_steps is not None and self.r1_weight is None:
            raise ValueError("r1_every_steps does nothing without r1_weight; give both or neither")
        return self

    @property
    def penalized(self) -> bool:
        """Whether the discriminator has a penalty on its gradient."""
        return self.r1_weight is not None or self.gradient_penalty_weight is not None

    def crop_problem(self, crop_px: int) -> str:
        """Return which crops fit, as the start of a sentence, or "" if `crop_px` fits."""
        needed_px = FLAT_WINDOW_PX // 2 + 1
        if self.region_aware and crop_px < needed_px:
            return f"region_aware needs at least {needed_px} px"
        return self.network.crop_problem(crop_px)


class Discriminator:
    """A discriminator in training: the losses of both sides.

    Args:
        name: its key in `Gan.nets`.
        spec: its options.
        net: maps images to logits; not wrapped for several processes.
    """

    def __init__(self, name: str, spec: DiscriminatorSpec, net: nn.Module) -> None:
        self.name: str = name
        self.spec: DiscriminatorSpec = spec
        self.net: nn.Module = net
        self.loss_name: str = loss_name(name)

    def generator_loss(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the generator's adversarial loss before its weight.

        The gradient reaches `sr`, but not the weights of the discriminator.
        """
        fake, real = self._inputs(sr, hr)
        # Not the wrapped network: DDP would wait for gradients of the discriminator, which do not exist here.
        with _frozen(self.net):
            fake_logits = self.net(fake)
            # The standard form needs outputs only, and the published code skips this pass as well.
            real_logits = self.net(real).detach() if self.spec.form == "relativistic" else fake_logits.detach()
        return generator_loss(real_logits, fake_logits, objective=self.spec.objective, form=self.spec.form, mean=_mean)

    def update(self, net: nn.Module, sr: Tensor, hr: Tensor, clock: Clock) -> Update:
        """Return the discriminator's own update.

        Args:
            net: the discriminator, wrapped if the run has several processes.
            sr: outputs `[N, C, H, W]`, detached.
            hr: ground truths `[N, C, H, W]`.
            clock: time of the step.
        """
        fake, real = self._inputs(sr, hr)
        r1_every_steps = self.spec.r1_every_steps or 1
        takes_r1 = self.spec.r1_weight is not None and clock.step % r1_every_steps == 0
        real.requires_grad_(takes_r1)
        real_logits, fake_logits = net(real), net(fake)
        real_loss, fake_loss = discriminator_losses(
            real_logits, fake_logits, objective=self.spec.objective, form=self.spec.form, mean=_mean
        )
        losses = {"real": real_loss, "fake": fake_loss}
        if takes_r1 and self.spec.r1_weight is not None:
            losses["r1"] = self.spec.r1_weight * r1_every_steps * r1_penalty(real_logits, real)
        if self.spec.gradient_penalty_weight is not None:
            losses["gradient_penalty"] = self.spec.gradient_penalty_weight * gradient_penalty(net, real, fake)
        scalars = {
            f"logits/{self.name}/real": real_logits.detach().mean(),
            f"logits/{self.name}/fake": fake_logits.detach().mean(),
        }
        return Update(self.name, {**losses}, scalars)

    def _inputs(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the discriminator's input for an output and for a ground truth."""
        hr = hr.detach()
        if self.spec.input == "gradient":
            fake, real = gradient_map(sr), gradient_map(hr)
        else:
            fake, real = sr, hr.view_as(hr)  # a new tensor, since R1 turns on its gradient
        if self.spec.region_aware:
            detailed = ~flat_mask(hr)
            fake, real = fake * detailed, real * detailed
        return fake, real


def loss_name(discriminator: str) -> str:
    """Return the name of a discriminator's loss among the generator's losses."""
    return f"adversarial_{discriminator}"


@contextlib.contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """Treat the weights of `net` as constants in the passes inside the context."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _mean(logits: Tensor) -> Tensor:
    """Return the mean over the images of all processes; the relativistic form compares with it."""
    return mean_over_processes(logits.mean())
