"""Score distillation: a one-step network learns from the scores of its base (docs/diffusion.md, eq. 18 to 23).

Classifier score distillation: Yu et al., "Text-to-3D with Classifier Score Distillation", ICLR 2024, in
super-resolution Sun et al., "PiSA-SR", CVPR 2025. Variational: Wang et al., "ProlificDreamer", NeurIPS 2023, in
super-resolution Wu et al., "OSEDiff", NeurIPS 2024.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.methods.contract import Method, MethodSetup, MethodSpec, RunOptions
from selfsr.nets.base import NetworkSpec
from selfsr.nets.diffusion.adapted import AdaptedDenoiser
from selfsr.nets.diffusion.lora import LoraSpec
from selfsr.nets.diffusion.noise import draw_training_noise, draw_training_steps
from selfsr.nets.diffusion.one_step import OneStep, OneStepSpec
from selfsr.spec import Spec
from selfsr.step import GENERATOR, Batch, Clock, Outputs, Update
from selfsr.terms.objective import Objective

DISTILLATION, FAKE = "distillation", "fake"
# The first draw of a step is for the generator, the second for the fake denoiser.
_GENERATOR_DRAW, _FAKE_DRAW = 0, 1

Times = tuple[NonNegativeInt, PositiveInt]


class _DistillationSpec(Spec):
    weight: PositiveFloat = Field(1.0, description="weight of the distillation loss in the generator's loss")
    guidance: PositiveFloat = Field(
        7.5,
        description="classifier-free guidance of the base: 1 is the prediction with the prompt, larger values move it "
        "further away from network.negative_prompt",
    )

    @field_validator("times", check_fields=False)
    @classmethod
    def _check_times(cls, times: Times) -> Times:
        if times[0] >= times[1]:
            raise ValueError(
                f"expected [first, end] with at least one time from first to end - 1, got {list(times)}; raise the end"
            )
        return times

    def needs_negative(self) -> bool:
        """Return whether the base also predicts with the negative prompt."""
        return True


class ClassifierSpec(_DistillationSpec):
    """Classifier score distillation: away from what the base predicts with the negative prompt."""

    kind: Literal["csd"]
    times: Times = Field(
        (20, 500), description="times at which latents get noise, from the first up to and without the second"
    )


class VariationalSpec(_DistillationSpec):
    """Variational score distillation: away from what adapters predict that are trained on the generator's outputs."""

    kind: Literal["vsd"]
    times: Times = Field(
        (20, 980), description="times at which latents get noise, from the first up to and without the second"
    )
    fake_lora: LoraSpec = Field(
        LoraSpec(),  # pyright: ignore[reportCallIssue]
        description="adapters of the base that are trained to denoise outputs of the generator; their optimizer "
        f"is {FAKE}",
    )

    def needs_negative(self) -> bool:
        """Return whether the base also predicts with the negative prompt."""
        return self.guidance != 1


class ScoreDistillationSpec(MethodSpec):
    """Minimize the terms plus a loss that makes outputs likely for the base of a one-step network."""

    kind: Literal["score_distillation"]
    distillation: Annotated[ClassifierSpec | VariationalSpec, Field(discriminator="kind")] = Field(
        description="the loss: csd has no second update and needs less memory; vsd trains adapters on the outputs"
    )

    @classmethod
    def trains(cls, network: NetworkSpec) -> bool:
        """Return whether this is a one-step network on a base."""
        return isinstance(network, OneStepSpec)

    @property
    def trained_nets(self) -> tuple[str, ...]:
        """Names of the networks that are trained; the recipe has an optimizer for each."""
        return (GENERATOR, FAKE) if self.distillation.kind == "vsd" else (GENERATOR,)

    @property
    def extra_loss_weights(self) -> dict[str, float]:
        """Weight of the distillation loss."""
        return {DISTILLATION: self.distillation.weight}

    def check(self, run: RunOptions) -> None:
        """Check that the recipe has a negative prompt if the loss needs one.

        Raises:
            ValueError: an option of the recipe does not fit; the message has its key, the value and the advice.
        """
        network = run.network
        assert isinstance(network, OneStepSpec)
        if self.distillation.needs_negative() and network.negative_prompt is None and network.prompt_file is None:
            raise ValueError(self._describe_missing_prompt())

    def _describe_missing_prompt(self) -> str:
        spec = self.distillation
        return (
            f"network.negative_prompt must be a text for method.distillation {spec.kind} with guidance "
            f'{spec.guidance:g}, got null; set it, which may be to "", or name a prompt_file with a negative prompt'
        )

    def build(self, setup: MethodSetup) -> "ScoreDistillation":
        """Return the method around the generator.

        Raises:
            InputError: the base has other times, the prompt file has no negative prompt, adapters fit no layer, or the
                weights of a term are not available.
        """
        net, spec = setup.generator, self.distillation
        assert isinstance(net, OneStep)
        if spec.times[1] > net.schedule.steps:
            raise InputError(
                f"method.distillation.times: expected an end of at most {net.schedule.steps}, the number of times of "
                f"the base, got {list(spec.times)}; lower it."
            )
        if spec.needs_negative() and net.get_prompt().negative is None:
            raise InputError(f"recipe: {self._describe_missing_prompt()}.")
        fake = None
        if isinstance(spec, VariationalSpec):
            fake = AdaptedDenoiser(net, spec.fake_lora, "method.distillation.fake_lora").to(setup.device)
        return ScoreDistillation(net, self.build_objective(setup), spec, fake, setup.seed)


class ScoreDistillation(Method):
    """Train a one-step network with its terms and with the scores of its base.

    Weights of the terms are matched at the latents of the output, through which all losses reach the network.

    Args:
        net: the generator.
        objective: losses of the generator.
        spec: the options of the distillation loss.
        fake: the denoiser of the generator's outputs, on the same frozen weights; None for csd.
        seed: seed of times and noise.
    """

    def __init__(
        self,
        net: OneStep,
        objective: Objective,
        spec: ClassifierSpec | VariationalSpec,
        fake: AdaptedDenoiser | None,
        seed: int,
    ) -> None:
        nets: dict[str, nn.Module] = {GENERATOR: net} if fake is None else {GENERATOR: net, FAKE: fake}
        super().__init__(nets, objective)
        self.net = net
        self.spec = spec
        self.fake = fake  # without a wrapper, which `nets` has
        self.seed = seed

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the generator's update, then that of the fake denoiser, on the latents from before the first."""
        # The image is decoded here, from the latents that the wrapped network returns, so that the distillation loss
        # and the terms lead through the same tensor, whatever the wrapper does to outputs.
        latents = self.nets[GENERATOR](batch.lr, return_latents=True).float()
        outputs = Outputs(self.net.decode(latents, *batch.lr.shape[-2:]))
        losses = {DISTILLATION: self._distill(latents, batch, clock)}
        yield from self.objective.updates(outputs, batch, clock, losses, anchor=latents)
        if FAKE in self.nets:
            del outputs, losses
            yield self._update_fake(latents.detach(), batch, clock)

    def _distill(self, latents: Tensor, batch: Batch, clock: Clock) -> Tensor:
        first, end = self.spec.times
        index, noise = self._draw(latents, batch, clock, end - first, _GENERATOR_DRAW)
        index = first + index
        with torch.no_grad():
            real, fake = self.predict_x0(self.net.schedule.add_noise(latents, noise, index), index)
        return score_distillation_loss(latents, real, fake)

    def predict_x0(self, noisy: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return x0 by the base with guidance, and x0 that outputs are moved away from, `[N, c, h, w]` each.

        Args:
            noisy: latents with noise, `[N, c, h, w]`.
            index: index of the noise process of each sample, int64 `[N]`.
        """
        net, fake = self.net, self.fake
        positive = net.run_denoiser(net.base.denoiser, noisy, index)
        guided = negative = positive
        if self.spec.needs_negative():
            negative = net.run_denoiser(net.base.denoiser, noisy, index, negative=True)
            guided = negative + self.spec.guidance * (positive - negative)
        away = negative if fake is None else fake(noisy, index)
        return net.schedule.predict_x0(guided, noisy, index), net.schedule.predict_x0(away, noisy, index)

    def _update_fake(self, latents: Tensor, batch: Batch, clock: Clock) -> Update:
        schedule = self.net.schedule
        index, noise = self._draw(latents, batch, clock, schedule.steps, _FAKE_DRAW)
        prediction = self.nets[FAKE](schedule.add_noise(latents, noise, index), index).float()
        loss = (prediction - schedule.target(latents, noise, index)).square().mean()
        return Update(FAKE, {"denoising": loss})

    def _draw(self, latents: Tensor, batch: Batch, clock: Clock, times: int, draw: int) -> tuple[Tensor, Tensor]:
        """Return a time below `times` and noise for each sample: functions of (seed, step, place in the batch)."""
        place = (self.seed, clock.step, batch.first_slot)
        return (
            draw_training_steps(*place, len(latents), times, draw),
            draw_training_noise(*place, latents.shape, latents.device, draw),
        )


def score_distillation_loss(latents: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return a scalar whose gradient at `latents` moves them from `fake` to `real` (docs/diffusion.md, eq. 22).

    With m values, the gradient is 2 d / m, d = (fake - real) / mean |latents - real|, the mean over each sample.

    Args:
        latents: latents of the output, `[N, c, h, w]`, with a gradient.
        real: x0 by the base, of the same shape, without a gradient.
        fake: x0 that outputs are moved away from, of the same shape, without a gradient.

    Example:
        >>> z = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
        >>> score_distillation_loss(z, real=torch.zeros(1, 1, 1, 2), fake=torch.ones(1, 1, 1, 2)).backward()
        >>> z.grad
        tensor([[[[0.5000, 0.5000]]]])
    """
    latents, real, fake = latents.float(), real.float(), fake.float()
    with torch.no_grad():
        distance = (latents - real).abs().mean(dim=(1, 2, 3), keepdim=True)
        # Where the latents are those of the base already, the step is finite; elsewhere this changes nothing.
        gradient = (fake - real) / distance.clamp(min=torch.finfo(torch.float32).eps)
        target = latents - gradient
    return (latents - target).square().mean()
