"""Denoising: train a network that samples, with any losses on the predicted image (docs/diffusion.md, eq. 7 and 26)."""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from selfsr.errors import InputError
from selfsr.methods.contract import Method, MethodSetup, MethodSpec, RunOptions
from selfsr.methods.image_loss import ImageLossSpec, PartDecoder, check_crop, check_terms, open_tiny_decoder
from selfsr.nets.diffusion.noise import draw_training_noise, draw_training_steps
from selfsr.nets.diffusion.noise_schedule import NoiseSchedule
from selfsr.nets.diffusion.residual_shifting import ResidualShiftingSpec
from selfsr.nets.diffusion.sampled import SampledNetwork
from selfsr.spec import DropNulls, EntryName
from selfsr.step import GENERATOR, Batch, Clock, MaskedSum, Outputs, Update
from selfsr.terms import Term
from selfsr.terms.objective import Objective

LOSS_NAME = "denoising"
_THIRDS = ("low_noise", "middle_noise", "high_noise")
# The network of the options that fit only one.
_NETWORKS = {
    "image_loss.max_noise": "residual_shifting",
    "image_loss.max_gain": "latent_diffusion",
    "min_snr_gamma": "latent_diffusion",
}


class DenoisingSpec(MethodSpec):
    """Predict the ground truth from noisy images; the terms compare the prediction, as an image, with it."""

    trains_sampled: ClassVar[bool] = True

    kind: Literal["denoising"] = "denoising"
    terms: Annotated[dict[EntryName, Term], DropNulls] = Field(
        default_factory=dict,
        description="losses of the predicted image, by name, in addition to the denoising loss. null removes one",
    )
    denoising_weight: PositiveFloat = Field(
        1.0,
        description="weight of the denoising loss, the squared error of the prediction: of the ground truth in the "
        "values of the space (pixels in [-1, 1]), or of what a pretrained base predicts",
    )
    min_snr_gamma: PositiveFloat | None = Field(
        None,
        description="gamma of min-SNR weights of the denoising loss (docs/diffusion.md, eq. 27), for latent_diffusion; "
        "5 is usual, null weighs all times alike, as StableSR and SeeSR do",
    )
    image_loss: ImageLossSpec = ImageLossSpec()  # pyright: ignore[reportCallIssue]

    @property
    def extra_loss_weights(self) -> dict[str, float]:
        """Weight of the denoising loss."""
        return {LOSS_NAME: self.denoising_weight}

    def check(self, run: RunOptions) -> None:
        """Check that the terms can be computed for the network, and that some samples have them.

        Raises:
            ValueError: an option of the recipe does not fit; the message has its key, the value and the advice.
        """
        network = run.network
        for key, kind in _NETWORKS.items():
            value = self.min_snr_gamma if key == "min_snr_gamma" else getattr(self.image_loss, key.rpartition(".")[2])
            if value is not None and type(network).model_fields["kind"].default != kind:
                raise ValueError(f"method.{key} is for network {kind}, got {value} with {network.name}; remove it")
        check_terms(self.terms, self.image_loss, run)
        if isinstance(network, ResidualShiftingSpec):
            self._check_shift(network)

    def _check_shift(self, network: ResidualShiftingSpec) -> None:
        if network.one_step:
            raise ValueError(
                "network.one_step must be false for method denoising, which trains every step, got true; use method "
                "shift_distillation"
            )
        if self.image_loss.tiny_decoder is not None and network.space == "pixel":
            raise ValueError(
                f"method.image_loss.tiny_decoder is for latents, got {self.image_loss.tiny_decoder} with network.space "
                "pixel; remove it"
            )
        least = float(network.shift.build().noise_std[0])
        if self.image_loss.max_noise is not None and self.image_loss.max_noise < least:
            raise ValueError(
                f"method.image_loss.max_noise must be at least {least:.4g}, the noise of the first diffusion step, got "
                f"{self.image_loss.max_noise}: no sample would have image losses; raise it or remove the terms"
            )

    def with_costliest_step(self) -> "DenoisingSpec":
        """Return the method with image losses for every sample, which need the most memory and time."""
        every = {"max_noise": None, "max_gain": math.inf}
        return self.model_copy(update={"image_loss": self.image_loss.model_copy(update=every)})

    def build(self, setup: MethodSetup) -> "Denoising":
        """Return the method around the generator.

        Raises:
            InputError: the crop or an option does not fit the network, or the weights of a term or of the tiny decoder
                are not available.
        """
        net = check_crop(setup)
        least, gain = float(net.noise_levels[0]), self.image_loss.max_gain
        if net.gate_option == "max_gain" and gain is not None and gain < least:
            raise InputError(
                f"method.image_loss.max_gain: expected at least {least:.4g}, the gain at the first time of the base, "
                f"got {gain}: no sample would have image losses; raise it or remove the terms."
            )
        return Denoising(net, self.build_objective(setup), self, setup)


class Denoising(Method):
    """Train a network with the denoising loss at random steps, and with terms on its predictions.

    Args:
        net: the generator.
        objective: losses of the generator.
        spec: the options.
        setup: device of the run, and seed of steps and noise.

    Raises:
        InputError: the tiny decoder is not available, or is for other latents.
    """

    def __init__(self, net: SampledNetwork, objective: Objective, spec: DenoisingSpec, setup: MethodSetup) -> None:
        super().__init__({GENERATOR: net}, objective)
        self.net = net
        self.image_loss: ImageLossSpec = spec.image_loss
        bound = getattr(spec.image_loss, net.gate_option)
        self.gate: float | None = net.default_gate if bound is None else bound
        self.min_snr_gamma = spec.min_snr_gamma
        tiny = spec.image_loss.tiny_decoder
        decoder = net.space if tiny is None else open_tiny_decoder(tiny, net.space, setup.device)
        self.parts: PartDecoder = PartDecoder(net, objective, spec.image_loss, decoder)
        self.seed: int = setup.seed

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the one update of a step."""
        net, count = self.net, len(batch.hr)
        x0, y = net.space.encode(batch.hr), net.condition(batch.lr)
        index = draw_training_steps(self.seed, clock.step, batch.first_slot, count, net.schedule.steps)
        noise = draw_training_noise(self.seed, clock.step, batch.first_slot, x0.shape, x0.device)
        noisy = net.add_noise(x0, y, noise, index)
        prediction = self.nets[GENERATOR](y, noisy, index).float()
        squared_errors = (prediction - net.target(x0, noise, index)).square().mean(dim=(1, 2, 3))
        if self.min_snr_gamma is not None:
            squared_errors = squared_errors * self._min_snr_weights(index, prediction)
        chosen = self._choose(index)
        complete, windows = self.parts.crop(batch)
        if windows is not None:
            windows = [windows[position] for position in chosen.tolist()]
        yield from self.objective.updates(
            Outputs(self.parts.decode(self._predict_values(prediction, noisy, index, chosen), windows)),
            _select(complete, chosen),
            clock,
            {LOSS_NAME: squared_errors.mean()},
            anchor=prediction,
            complete=complete,
            scalars=self._describe(squared_errors.detach(), index, chosen),
        )

    def count_masked_pixels(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each loss that is a `MaskedSum`, whatever samples have terms."""
        return self.objective.count_masked_pixels(self.parts.crop(batch)[0])

    def _choose(self, index: Tensor) -> Tensor:
        """Return the positions of the samples that have image losses, int64 `[n]`."""
        if not self.objective.terms:
            return index[:0]
        if self.gate is None:
            return torch.arange(len(index))
        levels = torch.as_tensor(self.net.noise_levels)[index]
        return (levels <= self.gate).nonzero()[:, 0]

    def _min_snr_weights(self, index: Tensor, like: Tensor) -> Tensor:
        schedule = self.net.schedule
        assert isinstance(schedule, NoiseSchedule)
        assert self.min_snr_gamma is not None
        return schedule.gather(schedule.min_snr_weights(self.min_snr_gamma), index, like)[:, 0, 0, 0]

    def _predict_values(self, prediction: Tensor, noisy: Tensor, index: Tensor, chosen: Tensor) -> Tensor:
        """Return the predicted ground truth of the chosen samples, with the gradient weighed by their noise."""
        schedule, places = self.net.schedule, chosen.to(prediction.device)
        values = self.net.predict_x0(prediction[places], noisy[places], index[chosen])
        if self.image_loss.weigh == "none":
            return values
        return _ScaleGradient.apply(values, schedule.gather(schedule.snr_root, index[chosen], values).clamp(max=1))

    def _describe(self, squared_errors: Tensor, index: Tensor, chosen: Tensor) -> dict[str, Tensor | MaskedSum]:
        """Return the denoising loss by thirds of the steps, and the share of samples that have image losses."""
        third = (index * 3) // self.net.schedule.steps
        scalars: dict[str, Tensor | MaskedSum] = {}
        for number, name in enumerate(_THIRDS):
            inside = (third == number).to(squared_errors)
            scalars[f"{LOSS_NAME}/{name}"] = MaskedSum((squared_errors * inside).sum(), inside.sum())
        if self.objective.terms:
            scalars[f"{LOSS_NAME}/decoded_share"] = squared_errors.new_tensor(len(chosen) / len(index))
        return scalars


def _select(batch: Batch, chosen: Tensor) -> Batch:
    if len(chosen) == len(batch.hr):
        return batch
    chosen = chosen.to(batch.hr.device)
    mask = None if batch.mask is None else batch.mask[chosen]
    return Batch(batch.hr[chosen], batch.lr[chosen], mask)


class _ScaleGradient(torch.autograd.Function):
    """The identity, with the gradient multiplied by a factor for each sample."""

    @staticmethod
    def forward(ctx, values: Tensor, factor: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(factor)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (factor,) = ctx.saved_tensors
        return gradient * factor, None
