"""Recipes: YAML files that describe one run each. Options have types; errors name the option and the nearest key."""

from selfsr.recipe.evaluate import EvalSet
from selfsr.recipe.reading import dump_recipe, load_recipe, parse_recipe, shipped_recipes
from selfsr.recipe.schema import Recipe
from selfsr.recipe.yaml12 import read_yaml

__all__ = ["EvalSet", "Recipe", "dump_recipe", "load_recipe", "parse_recipe", "read_yaml", "shipped_recipes"]
