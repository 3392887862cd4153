"""A run: the one loop, the parts that a recipe becomes, and what the loop calls."""
