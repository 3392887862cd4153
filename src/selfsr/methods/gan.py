"""Adversarial training: a generator, any number of discriminators, and the order in which they move (docs/gan.md)."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
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
from selfsr.methods import Setup, Update
from selfsr.methods.contract import ObjectiveMethod
from selfsr.nets.discriminators.union import DiscriminatorNetwork
from selfsr.spec import NullLeavesOut, Spec
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms import Term
from selfsr.terms.loss_weights import check_matches
from selfsr.terms.objective import Objective


class DiscriminatorSpec(Spec):
    """A discriminator: its network, what it is shown, what it plays for, and how much the generator heeds it."""

    network: DiscriminatorNetwork
    start_from: Path | None = Field(None, description="weights that the discriminator starts from")
    input: Literal["image", "gradient"] = Field("image", description="the images, or their gradient maps as in SPSR")
    region_aware: bool = Field(False, description="show it black where the ground truth is flat, as in BebyGAN")
    objective: AdversarialObjective = Field("vanilla", description="vanilla is binary cross-entropy")
    form: AdversarialForm = Field("relativistic", description="judge images alone, or against the mean of the others")
    weight: PositiveFloat = Field(description="of the generator's adversarial loss")
    r1_weight: PositiveFloat | None = Field(None, description="gamma of the R1 penalty on ground truths")
    r1_every_steps: PositiveInt | None = Field(
        None, description="take the R1 penalty in each of so many steps only, and so many times as large; null is 1"
    )
    gradient_penalty_weight: PositiveFloat | None = Field(
        None, description="lambda of WGAN-GP's penalty between ground truths and outputs; 10 is usual"
    )

    @model_validator(mode="after")
    def _plays(self) -> "DiscriminatorSpec":
        if self.objective == "wasserstein" and self.form == "relativistic":
            raise ValueError(
                "form must be standard for the wasserstein objective, which compares means already, got relativistic"
            )
        if self.objective == "wasserstein" and not self.penalized:
            raise ValueError(
                "the wasserstein objective needs gradient_penalty_weight or r1_weight, got neither: "
                "nothing would bound the discriminator; 10 is usual for gradient_penalty_weight"
            )
        if self.r1_every_steps is not None and self.r1_weight is None:
            raise ValueError("r1_every_steps does nothing without r1_weight; give both or neither")
        return self

    @property
    def penalized(self) -> bool:
        """Whether the discriminator pays for its gradient at all."""
        return self.r1_weight is not None or self.gradient_penalty_weight is not None

    def crop_problem(self, crop_px: int) -> str:
        """Say which crops fit, if one of `crop_px` does not, as the start of a sentence; empty if it does."""
        needed_px = FLAT_WINDOW_PX // 2 + 1
        if self.region_aware and crop_px < needed_px:
            return f"region_aware needs at least {needed_px} px"
        return self.network.crop_problem(crop_px)


class GanSpec(Spec):
    """Make the sum of the terms and of every discriminator's adversarial loss small, while the discriminators learn to tell."""

    kind: Literal["gan"]
    terms: Annotated[dict[str, Term], NullLeavesOut] = Field(
        min_length=1, description="the losses by name, which appears in logs; null leaves one out"
    )
    discriminators: Annotated[dict[str, DiscriminatorSpec], NullLeavesOut] = Field(
        min_length=1, description="by name, which is also their optimizer's; null leaves one out"
    )
    warmup_steps: int = Field(0, ge=0, description="steps at the start in which discriminators alone are trained")
    generator_every_steps: PositiveInt = Field(1, description="the generator moves in each of so many steps")

    @model_validator(mode="after")
    def _names_and_weights(self) -> "GanSpec":
        if "g" in self.discriminators:
            raise ValueError("discriminators must not be named g, which is the generator; call it d")
        for name in self.discriminators:
            if _loss_name(name) in self.terms:
                raise ValueError(
                    f"terms must not hold {_loss_name(name)}, the name of the loss that discriminator {name} adds; rename one"
                )
        check_matches({name: term.weight for name, term in self.terms.items()} | self.adversarial_weights)
        return self

    @property
    def trained_nets(self) -> tuple[str, ...]:
        """The networks that want an optimizer."""
        return ("g", *self.discriminators)

    @property
    def pretrained(self) -> dict[str, Path]:
        """The weights files that networks besides the generator start from."""
        return {
            name: discriminator.start_from
            for name, discriminator in self.discriminators.items()
            if discriminator.start_from is not None
        }

    def updates_generator(self, step: int) -> bool:
        """Tell whether the generator has an update in `step`, counted from 1."""
        return step > self.warmup_steps and step % self.generator_every_steps == 0

    def generator_updates(self, steps: int) -> int:
        """Return how many of so many steps have an update of the generator."""
        every = self.generator_every_steps
        return max(0, steps // every - self.warmup_steps // every)

    @property
    def adversarial_weights(self) -> dict[str, float]:
        """The weights of the discriminators' losses in the generator's objective, by the names that these have there."""
        return {_loss_name(name): discriminator.weight for name, discriminator in self.discriminators.items()}

    def build(self, setup: Setup) -> "Gan":
        """Return the method around the generator, with discriminators as they start.

        Raises:
            InputError: a discriminator does not fit the crop, or weights that a term needs cannot be had.
        """
        discriminators = {}
        for name, spec in self.discriminators.items():
            net = spec.network.build(setup.channels, setup.crop_px).to(setup.device)
            discriminators[name] = Discriminator(name, spec, net)
        objective = Objective(self.terms, setup.device, setup.ema_forward, self.adversarial_weights)
        return Gan(setup.generator, objective, discriminators, self.updates_generator)


class Gan(ObjectiveMethod):
    """Train a generator by its terms and by discriminators, and the discriminators on what it makes.

    Args:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`.
        objective: the generator's terms.
        discriminators: by name.
        updates_generator: tells whether the generator has an update in a step.
    """

    def __init__(
        self,
        generator: nn.Module,
        objective: Objective,
        discriminators: "dict[str, Discriminator]",
        updates_generator: Callable[[int], bool],
    ) -> None:
        super().__init__(
            {"g": generator, **{name: discriminator.net for name, discriminator in discriminators.items()}}, objective
        )
        self.discriminators = discriminators
        self.updates_generator = updates_generator

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the generator's update, then each discriminator's on the output from before that update."""
        if self.updates_generator(clock.step):
            outputs = Outputs.from_network(self.nets["g"](batch.lr)).float()
            adversarial = {
                discriminator.loss_name: discriminator.generator_loss(outputs.sr, batch.hr)
                for discriminator in self.discriminators.values()
            }
            yield Update("g", self.objective(outputs, batch, clock, adversarial), self.objective.logged_scalars())
            self.objective.finish_update()
            sr = outputs.sr.detach()
        else:
            with torch.no_grad():
                sr = Outputs.from_network(self.nets["g"](batch.lr)).float().sr
        for name, discriminator in self.discriminators.items():
            yield discriminator.update(self.nets[name], sr, batch.hr, clock)


class Discriminator:
    """A discriminator in training: what both sides make small.

    Args:
        name: its key in `Gan.nets`.
        spec: how it plays.
        net: maps images to logits; not wrapped.
    """

    def __init__(self, name: str, spec: DiscriminatorSpec, net: nn.Module) -> None:
        self.name, self.spec, self.net = name, spec, net
        self.loss_name = _loss_name(name)

    def generator_loss(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the generator's adversarial loss before its weight; no gradient reaches the discriminator's weights."""
        fake, real = self._shown(sr, hr)
        # Not the wrapped network: its reducer would wait for gradients of the discriminator, which there are none of.
        with _constant(self.net):
            fake_logits = self.net(fake)
            # The standard form looks at outputs alone, and the published code spares itself the pass, too.
            real_logits = self.net(real).detach() if self.spec.form == "relativistic" else fake_logits.detach()
        return generator_loss(real_logits, fake_logits, objective=self.spec.objective, form=self.spec.form, mean=_mean)

    def update(self, net: nn.Module, sr: Tensor, hr: Tensor, clock: Clock) -> Update:
        """Return the discriminator's own update.

        Args:
            net: the discriminator, wrapped if the run has several processes.
            sr: outputs, detached.
            hr: ground truths.
            clock: the time.
        """
        fake, real = self._shown(sr, hr)
        r1_every_steps = self.spec.r1_every_steps or 1
        takes_r1 = self.spec.r1_weight is not None and clock.step % r1_every_steps == 0
        real.requires_grad_(takes_r1)
        real_logits, fake_logits = net(real), net(fake)
        on_real, on_fake = discriminator_losses(
            real_logits, fake_logits, objective=self.spec.objective, form=self.spec.form, mean=_mean
        )
        terms = {"real": on_real, "fake": on_fake}
        if takes_r1 and self.spec.r1_weight is not None:
            terms["r1"] = self.spec.r1_weight * r1_every_steps * r1_penalty(real_logits, real)
        if self.spec.gradient_penalty_weight is not None:
            terms["gradient_penalty"] = self.spec.gradient_penalty_weight * gradient_penalty(net, real, fake)
        scalars = {
            f"logits/{self.name}/real": real_logits.detach().mean(),
            f"logits/{self.name}/fake": fake_logits.detach().mean(),
        }
        return Update(self.name, {**terms}, scalars)

    def _shown(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the discriminator is shown of an output and of a ground truth."""
        hr = hr.detach()
        if self.spec.input == "gradient":
            sr, real = gradient_map(sr), gradient_map(hr)
        else:
            real = hr.view_as(hr)  # a tensor of its own, for R1 marks it as one with a gradient
        if self.spec.region_aware:
            detailed = ~flat_mask(hr)
            sr, real = sr * detailed, real * detailed
        return sr, real


@contextlib.contextmanager
def _constant(net: nn.Module) -> Iterator[None]:
    """Take the weights of `net` for constants in passes made inside."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _mean(logits: Tensor) -> Tensor:
    """Return the mean over the images of all processes, which the relativistic form compares with."""
    return mean_over_processes(logits.mean())


def _loss_name(discriminator: str) -> str:
    return f"adversarial_{discriminator}"
