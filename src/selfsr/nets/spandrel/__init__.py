"""Networks built from spandrel's classes, so that spandrel and all tools based on it open their files.

Defaults are the authors' published settings. Options that spandrel cannot infer from a weights file stay at the
authors' values, so networks that are trained here compute the same in other programs. Names in parentheses are the
authors' names of an option. Spandrel is imported when a network is built, not when a recipe is read.

Each file changes spandrel's class where training needs it, with the reason next to the code.
"""
