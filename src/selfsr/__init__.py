"""selfsr: train, run and judge image super-resolution models.

This package imports torch and nothing else; the trainer and the judge live in modules of their own
and come with `pip install "selfsr[train]"`.
"""

__version__ = "0.1.0"
