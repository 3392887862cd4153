"""Adversarial training: a generator, any number of discriminators, and the order of their updates (docs/gan.md)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from selfsr.methods.contract import Method, MethodSetup, MethodSpec, RunOptions
from selfsr.methods.discriminator import Discriminator, DiscriminatorSpec, loss_name
from selfsr.spec import DropNulls, EntryName
from selfsr.step import GENERATOR, Batch, Clock, Outputs, Update
from selfsr.terms.objective import Objective


class GanSpec(MethodSpec):
    """Minimize the terms plus an adversarial loss for each discriminator, and train the discriminators."""

    kind: Literal["gan"]
    discriminators: Annotated[dict[EntryName, DiscriminatorSpec], DropNulls] = Field(
        min_length=1,
        description="discriminators by name; each has the optimizer of the same name. null removes one",
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        description="steps at the start that train only the discriminators; useful if the generator is pretrained",
    )
    generator_every_steps: PositiveInt = Field(
        1, description="update the generator only in every n-th step; raise it to train the discriminators more often"
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if GENERATOR in self.discriminators:
            raise ValueError(f"discriminators must not be named {GENERATOR}, which is the generator; call it d")
        return self

    @property
    def trained_nets(self) -> tuple[str, ...]:
        """Names of the networks that are trained; the recipe has an optimizer for each."""
        return (GENERATOR, *self.discriminators)

    @property
    def reusable_nets(self) -> tuple[str, ...]:
        """Names of the discriminators."""
        return tuple(self.discriminators)

    @property
    def other_starts(self) -> dict[str, Path]:
        """Weights files from which discriminators start, by discriminator."""
        return {name: spec.start_from for name, spec in self.discriminators.items() if spec.start_from is not None}

    @property
    def extra_loss_weights(self) -> dict[str, float]:
        """Weights of the adversarial losses, by name of the loss."""
        return {loss_name(name): spec.weight for name, spec in self.discriminators.items()}

    def updates_generator(self, step: int) -> bool:
        """Return whether `step`, counted from 1, updates the generator."""
        return step > self.warmup_steps and step % self.generator_every_steps == 0

    def count_generator_updates(self, steps: int) -> int:
        """Return how many of the first `steps` steps update the generator."""
        every = self.generator_every_steps
        return max(0, steps // every - self.warmup_steps // every)

    def check(self, run: RunOptions) -> None:
        """Check that the discriminators fit the crops and the precision, and that the generator is trained at all.

        Raises:
            ValueError: an option of the recipe does not fit; the message has its key, the value and the advice.
        """
        for name, spec in self.discriminators.items():
            key = f"method.discriminators.{name} ({spec.network.kind})"
            if spec.network.fixed_size and len(set(run.crops_px.values())) > 1:
                raise ValueError(
                    f"crop_px must be one number for {key}, which is built for one size of crop, got "
                    f"{list(run.crops_px.values())}; use one size for all scales, or another discriminator"
                )
            for crop_px in run.crops_px.values():
                if problem := spec.crop_problem(crop_px):
                    raise ValueError(
                        f"crop_px does not fit {key}: {problem}, got {crop_px} px; change the crop or the discriminator"
                    )
        if not self.count_generator_updates(run.steps):
            raise ValueError(
                f"method.warmup_steps and method.generator_every_steps must leave the generator an update in steps "
                f"{run.steps}, got {self.warmup_steps} and {self.generator_every_steps}; lower them or raise steps"
            )
        if run.precision == "float16" and any(spec.penalized for spec in self.discriminators.values()):
            raise ValueError(
                "precision must be bfloat16 or float32 with r1_weight or gradient_penalty_weight, got float16: "
                "the gradients in these penalties would underflow"
            )

    def with_costliest_step(self) -> Self:
        """Return the method with an update of every network in each step, which needs the most memory and time."""
        return self.model_copy(update={"warmup_steps": 0, "generator_every_steps": 1})

    def build(self, setup: MethodSetup) -> "Gan":
        """Return the method around the generator, with freshly initialized discriminators.

        Raises:
            InputError: a discriminator does not fit the crop, or the weights of a term are not available.
        """
        discriminators = {}
        for name, spec in self.discriminators.items():
            net = spec.network.build(setup.channels, setup.crop_px).to(setup.device)
            discriminators[name] = Discriminator(name, spec, net)
        return Gan(setup.generator, self.build_objective(setup), discriminators, self.updates_generator)


class Gan(Method):
    """Train a generator with its terms and against discriminators, and the discriminators on its outputs.

    Args:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`.
        objective: losses of the generator.
        discriminators: by name.
        updates_generator: returns whether a step updates the generator.
    """

    def __init__(
        self,
        generator: nn.Module,
        objective: Objective,
        discriminators: dict[str, Discriminator],
        updates_generator: Callable[[int], bool],
    ) -> None:
        super().__init__(
            {GENERATOR: generator, **{name: discriminator.net for name, discriminator in discriminators.items()}},
            objective,
        )
        self.discriminators = discriminators
        self.updates_generator = updates_generator

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the generator's update, then each discriminator's, on the output from before the first."""
        if self.updates_generator(clock.step):
            outputs = Outputs.from_network(self.nets[GENERATOR](batch.lr)).float()
            adversarial_losses = {
                discriminator.loss_name: discriminator.generator_loss(outputs.sr, batch.hr)
                for discriminator in self.discriminators.values()
            }
            yield from self.objective.updates(outputs, batch, clock, adversarial_losses)
            sr = outputs.sr.detach()
        else:
            with torch.no_grad():
                sr = Outputs.from_network(self.nets[GENERATOR](batch.lr)).float().sr
        for name, discriminator in self.discriminators.items():
            yield discriminator.update(self.nets[name], sr, batch.hr, clock)
