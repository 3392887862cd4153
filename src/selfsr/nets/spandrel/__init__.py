"""The networks that the community trains, on the classes by which spandrel and all tools on it read their files.

The defaults are the authors' published settings. Options that a weights file does not show (and spandrel would
therefore guess) stay at the authors' values, so whatever is trained here opens elsewhere as it was. Names in
brackets are the authors' own for an option.

Spandrel is imported when a network is built, not when a recipe is read.
"""
