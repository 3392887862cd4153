"""Recipes: one YAML file describes one run. Every option has a type; errors name the option and the nearest key."""

from selfsr.recipe.evaluate import EvalSet
from selfsr.recipe.reading import dump_recipe, load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.recipe.schema import Recipe

__all__ = ["EvalSet", "Recipe", "dump_recipe", "load_recipe", "parse_recipe", "read_yaml", "shipped_recipes"]
