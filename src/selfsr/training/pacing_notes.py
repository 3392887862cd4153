"""Print when self-paced weights reach their size, and warn where a network gets no gradient."""

import math
from collections.abc import Iterator, Mapping

from selfsr.recipe import Recipe
from selfsr.step import Clock
from selfsr.terms.pace import Pace, PixelPace

_LOW, _HALF = 0.1, 0.5
# A run that is planned for the curriculum has half of the peak weight after this fraction of its steps, as the small
# recipes have; published runs after about 1 %.
_PLANNED_FRACTION = 0.2


def describe_paces(recipe: Recipe) -> list[str]:
    """Return a sentence for each self-paced term: when its weights are large, and what to change if they never are.

    Normalized weights have the mean 1 at any time, so they have no sentence.

    Args:
        recipe: the recipe of the complete run.
    """
    return [_describe_pace(recipe, name, pace) for name, pace in _absolute_paces(recipe)]


def _absolute_paces(recipe: Recipe) -> Iterator[tuple[str, Pace]]:
    for name, term in recipe.method.terms.items():
        pace: Pace | None = getattr(term, "pace", None)
        if pace is not None and not (isinstance(pace, PixelPace) and pace.normalize):
            yield name, pace


def _describe_pace(recipe: Recipe, name: str, pace: Pace) -> str:
    low, half = (pace.first_step(share, recipe.steps_per_epoch, recipe.steps) for share in (_LOW, _HALF))
    end = pace.share_of_peak(Clock(recipe.steps, recipe.steps_per_epoch, recipe.steps))
    key = f"method.terms.{name}.pace"
    reached = (
        f"the weights of pixels with SSIM {pace.last_ssim:g} reach 10 % of their peak {_describe_step(low)} and 50 % "
        f"{_describe_step(half)}, and the run ends at step {recipe.steps:,} with {_format_share(end)}"
    )
    if end >= _HALF:
        return f"{key}: {reached}."
    return f"Warning: {key}: {reached}, so it learns little or nothing; {_advise(recipe, key, pace)}."


def _describe_step(step: int | None) -> str:
    return "never" if step is None else f"at step {step:,}"


def _format_share(share: float) -> str:
    if share >= 0.9995:
        return "100 %"
    return f"{100 * share:.3g} %" if share >= 1e-5 else "less than 0.001 %"


def _advise(recipe: Recipe, key: str, pace: Pace) -> str:
    """Return the settings with which half of the peak is reached after `_PLANNED_FRACTION` of the run."""
    growth = pace.sigma_of_share(_HALF) - pace.beta
    alpha = f"{growth / _PLANNED_FRACTION:.3g}"
    by_run = f"--set {key}.clock=run --set {key}.alpha={alpha}"
    if pace.clock == "run" or pace.alpha == 0:
        return f"add {by_run if pace.clock == 'epoch' else f'--set {key}.alpha={alpha}'}, or --set {key}=null"
    steps_per_epoch = math.floor(_PLANNED_FRACTION * recipe.steps * pace.alpha / growth)
    return f"add {by_run}" + (f", or --set steps_per_epoch={steps_per_epoch}" if steps_per_epoch else "")


class GradientWatch:
    """Warn where a network gets a gradient of exactly 0, once until it gets another one.

    Args:
        recipe: the recipe of the run, for the names of terms and optimizers.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._silent: set[str] = set()

    def check(self, means: Mapping[str, float], clock: Clock) -> list[str]:
        """Return a warning for each network whose mean gradient norm is 0.

        Args:
            means: the logged means, with `grad_norm/<net>` and `loss/<net>/<term>`.
            clock: time of the last step of the means.
        """
        warnings = []
        for path, norm in means.items():
            if not path.startswith("grad_norm/"):
                continue
            net = path.removeprefix("grad_norm/")
            if norm == 0 and net not in self._silent:
                warnings.append(self._warn(net, means, clock))
            (self._silent.add if norm == 0 else self._silent.discard)(net)
        return warnings

    def _warn(self, net: str, means: Mapping[str, float], clock: Clock) -> str:
        prefix = f"loss/{net}/"
        terms = [path.removeprefix(prefix) for path in means if path.startswith(prefix)]
        names = f"the term{'s' * (len(terms) > 1)} {', '.join(terms)}" if terms else "its losses"
        paces = dict(_absolute_paces(self._recipe))
        shares = [
            f"the pixel weights of the term {name} are {_format_share(paces[name].share_of_peak(clock))} of their peak"
            for name in terms
            if name in paces
        ]
        reason = f": {' and '.join(shares)}" if shares else ""
        paced = next((name for name in terms if name in paces), None)
        return (
            f"Warning: train: a gradient above 0 was expected for optimizers.{net}, got exactly 0 from {names} up to "
            f"step {clock.step:,}{reason}, so {net} has learned nothing yet; {self._advise(paced, paces)}."
        )

    def _advise(self, paced: str | None, paces: Mapping[str, Pace]) -> str:
        recipe = self._recipe
        if paced is None:
            return "change the terms or their weights, or the start of the network"
        pace, key = paces[paced], f"method.terms.{paced}.pace"
        if pace.share_of_peak(Clock(recipe.steps, recipe.steps_per_epoch, recipe.steps)) < _HALF:
            return _advise(recipe, key, pace)
        low = pace.first_step(_LOW, recipe.steps_per_epoch, recipe.steps)
        return f"wait until step {low:,}, where the weights reach 10 % of their peak, or raise {key}.beta"
