"""Training: the loop, the parts that are built from a recipe, and the functions that the loop calls."""
