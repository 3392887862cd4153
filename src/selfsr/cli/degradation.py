"""Find the degradation that an option names: a preset, or the degradation of a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfsr.degrade.base import PresetSpec


def find_degradation(command: str, name: str) -> "PresetSpec":
    """Return a preset by its name, or `data.degrade` of a recipe, a file or a shipped one.

    Args:
        command: the command, for messages.
        name: the value of its option `--degrade`.

    Raises:
        InputError: there is no such preset, recipe or file, or the recipe does not degrade; proposes the nearest name.
    """
    from selfsr.degrade.presets import PRESETS, get_preset
    from selfsr.errors import InputError, find_similar
    from selfsr.recipe import load_recipe, shipped_recipes

    if name in PRESETS:
        return get_preset(name)
    recipe = shipped_recipes().get(name, Path(name))
    if not recipe.is_file():
        similar = find_similar(name, [*PRESETS, *shipped_recipes()])
        advice = f"did you mean {similar}?" if similar else "use one of these."
        raise InputError(
            f"{command}: expected a preset ({', '.join(PRESETS)}) or a recipe for --degrade, got {name}; {advice}"
        )
    degradation = getattr(load_recipe(recipe).data, "degrade", None)
    if degradation is None:
        raise InputError(
            f"{command}: expected a recipe with data.degrade for --degrade, got {name}, which trains on other inputs; "
            "name a preset."
        )
    return degradation
