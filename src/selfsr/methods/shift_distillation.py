"""Distill a residual-shifting network into one that samples in one step (Wang et al., "SinSR", CVPR 2024)."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator
from torch import Tensor

from selfsr.errors import InputError
from selfsr.methods.contract import Method, MethodSetup, MethodSpec, RunOptions
from selfsr.methods.image_loss import DecodeSpec, PartDecoder, check_crop, check_terms
from selfsr.nets.diffusion.noise import draw_training_noise
from selfsr.nets.diffusion.residual_shifting import ResidualShifting, ResidualShiftingSpec
from selfsr.nets.weights.load import load_model
from selfsr.spec import DropNulls, EntryName, expand_home
from selfsr.step import GENERATOR, Batch, Clock, Outputs, Update
from selfsr.terms import Term
from selfsr.terms.objective import Objective

DISTILLATION, INVERSION, TRUTH = "distillation", "inversion", "truth"


class ShiftDistillationSpec(MethodSpec):
    """Train a one-step student of a residual-shifting network; the terms compare its output with the ground truth."""

    trains_sampled: ClassVar[bool] = True

    kind: Literal["shift_distillation"] = "shift_distillation"
    teacher: Path = Field(
        description="weights file of the teacher, a trained residual_shifting network; the student starts as its copy"
    )
    terms: Annotated[dict[EntryName, Term], DropNulls] = Field(
        default_factory=dict, description="losses of the student's output as an image, by name. null removes one"
    )
    distillation_weight: PositiveFloat = Field(
        1.0,
        description="weight of the squared distance to the teacher's deterministic sample (docs/diffusion.md, eq. 11)",
    )
    inversion_weight: NonNegativeFloat = Field(
        1.0,
        description="weight of the way back from the teacher's sample to its noise (docs/diffusion.md, eq. 12), which "
        "truth_weight needs; 0 leaves both out, which is faster",
    )
    truth_weight: NonNegativeFloat = Field(
        1.0,
        description="weight of the squared distance to the ground truth, from its own noise (docs/diffusion.md, "
        "eq. 13)",
    )
    image_loss: DecodeSpec = DecodeSpec()  # pyright: ignore[reportCallIssue]

    @field_validator("teacher")
    @classmethod
    def _expand_home(cls, path: Path) -> Path:
        return expand_home(path)

    @property
    def generator_start(self) -> Path:
        """The student starts as a copy of the teacher."""
        return self.teacher

    @property
    def extra_loss_weights(self) -> dict[str, float]:
        """Weights of the three losses; those that are left out have none."""
        weights = {
            DISTILLATION: self.distillation_weight,
            INVERSION: self.inversion_weight,
            TRUTH: self.truth_weight if self.inversion_weight else 0.0,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def check(self, run: RunOptions) -> None:
        """Check that the network is a one-step student, and that the terms can be computed for it.

        Raises:
            ValueError: an option of the recipe does not fit; the message has its key, the value and the advice.
        """
        network = run.network
        if not isinstance(network, ResidualShiftingSpec):
            raise ValueError(
                f"network.kind must be residual_shifting for method shift_distillation, got {network.name}; use method "
                "denoising"
            )
        if not network.one_step:
            raise ValueError("network.one_step must be true for method shift_distillation, got false; set it")
        if self.inversion_weight and network.shift.steps < 2:
            raise ValueError(
                f"network.shift.steps must be 2 or more for inversion_weight, got {network.shift.steps}: the way back "
                "needs a step of its own; set inversion_weight to 0"
            )
        check_terms(self.terms, self.image_loss, run)

    def build(self, setup: MethodSetup) -> "ShiftDistillation":
        """Return the method around the student.

        Raises:
            InputError: the teacher is missing or another network than the student, the crop does not fit, or the
                weights of a term are not available.
        """
        net = check_crop(setup)
        assert isinstance(net, ResidualShifting)
        teacher = _load_teacher(self.teacher, net).to(setup.device)
        return ShiftDistillation(net, teacher, self.build_objective(setup), self, setup.seed)


def _load_teacher(path: Path, student: ResidualShifting) -> ResidualShifting:
    """Return the teacher, frozen, with the student's autoencoder.

    Raises:
        InputError: it is not a residual-shifting network, or differs from the student in more than `one_step`.
    """
    teacher, student_spec = load_model(path).net, student.spec
    if not isinstance(teacher, ResidualShifting) or teacher.trained_steps == 1 < teacher.schedule.steps:
        raise InputError(
            f"method.teacher: expected the weights of a residual_shifting network with all its steps, got {path} with "
            "another; train one with method denoising."
        )
    assert isinstance(student_spec, ResidualShiftingSpec)
    assert isinstance(teacher.spec, ResidualShiftingSpec)
    for name in ("unet", "shift"):
        ours, theirs = (getattr(spec, name).model_dump(mode="json") for spec in (student_spec, teacher.spec))
        if ours != theirs:
            raise InputError(
                f"network.{name}: expected that of the teacher in {path}, {theirs}, got {ours}; copy the teacher's."
            )
    ours = (student.scale, student.channels, getattr(student.space, "sha256", "pixel"))
    theirs = (teacher.scale, teacher.channels, getattr(teacher.space, "sha256", "pixel"))
    if ours != theirs:
        raise InputError(
            f"network: expected scale, channels and space of the teacher in {path}, {theirs}, got {ours}; copy its "
            "network and scale."
        )
    teacher.space = student.space
    return teacher.eval().requires_grad_(False)


class ShiftDistillation(Method):
    """Train a student on its teacher's deterministic samples, with terms on its output.

    Args:
        net: the student.
        teacher: frozen.
        objective: losses of the student.
        spec: which losses, and on which part of the images.
        seed: seed of the noise.
    """

    def __init__(
        self,
        net: ResidualShifting,
        teacher: ResidualShifting,
        objective: Objective,
        spec: ShiftDistillationSpec,
        seed: int,
    ) -> None:
        super().__init__({GENERATOR: net}, objective)
        self.net = net
        self.teacher = [teacher]  # not a module of the method: it is neither trained nor saved
        self.parts: PartDecoder = PartDecoder(net, objective, spec.image_loss, net.space)
        self.losses: set[str] = set(spec.extra_loss_weights)
        self.seed = seed

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the one update of a step."""
        net, schedule = self.net, self.net.schedule
        x0, y = net.space.encode(batch.hr), net.condition(batch.lr)
        noise = draw_training_noise(self.seed, clock.step, batch.first_slot, y.shape, y.device)
        x_end = schedule.start(y, noise)
        taught = self._ask_teacher(y, x_end)
        inputs, steps = [x_end], [schedule.steps - 1]
        if INVERSION in self.losses:
            inputs, steps = [*inputs, taught], [*steps, 0]
        if TRUTH in self.losses:
            with torch.no_grad():
                inputs, steps = [*inputs, net(y, x0, _repeat(0, y)).float()], [*steps, schedule.steps - 1]
        # One pass for all losses, since a network that is wrapped for several processes expects one in each update.
        index = torch.cat([_repeat(step, y) for step in steps])
        predictions = self.nets[GENERATOR](torch.cat([y] * len(inputs)), torch.cat(inputs), index).float()
        prediction, *others = predictions.chunk(len(inputs))
        losses = {DISTILLATION: (prediction - taught).square().mean()}
        for name, target in ((INVERSION, x_end), (TRUTH, x0)):
            if name in self.losses:
                losses[name] = (others.pop(0) - target).square().mean()
        part, windows = self.parts.crop(batch)
        yield from self.objective.updates(
            Outputs(self.parts.decode(prediction, windows) if self.objective.terms else batch.hr),
            part if self.objective.terms else batch,
            clock,
            losses,
            anchor=prediction,
        )

    def _ask_teacher(self, y: Tensor, x_end: Tensor) -> Tensor:
        """Return the teacher's deterministic sample from x_T in all its steps, without a gradient."""
        teacher, x = self.teacher[0], x_end
        schedule = teacher.schedule
        with torch.no_grad():
            for i in range(schedule.steps - 1, -1, -1):
                x0 = teacher(y, x, _repeat(i, y)).float()
                of_x0, of_x, of_y = schedule.deterministic(i, i - 1)
                x = of_x0 * x0 + of_x * x + of_y * y
        return x

    def count_masked_pixels(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each loss that is a `MaskedSum`."""
        return self.objective.count_masked_pixels(self.parts.crop(batch)[0])

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, with a checksum of the teacher."""
        return {**super().state(), "teacher": _checksum(self.teacher[0])}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint.

        Raises:
            InputError: the teacher is another one than before.
        """
        if state["teacher"] != _checksum(self.teacher[0]):
            raise InputError(
                "method.teacher: expected the teacher with which the run began, got another; restore its weights file."
            )
        super().load(state)


def _repeat(step: int, y: Tensor) -> Tensor:
    return torch.full((len(y),), step)


def _checksum(net: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
