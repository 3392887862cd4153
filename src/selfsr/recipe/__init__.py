"""A recipe: one YAML file is one run. Read strictly, typed to the leaf, refused with the path and the nearest key."""

from selfsr.recipe.reading import dump_recipe, load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.recipe.schema import EvalSet, Recipe

__all__ = ["EvalSet", "Recipe", "dump_recipe", "load_recipe", "parse_recipe", "read_yaml", "shipped_recipes"]
