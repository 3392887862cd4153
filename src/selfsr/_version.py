"""The version of the installed package, read when it is asked for and not at import."""

import functools


def __getattr__(name: str) -> str:
    """Return `__version__`; `selfsr` forwards unknown attributes to this function."""
    if name == "__version__":
        return read_version()
    raise AttributeError(f"module 'selfsr' has no attribute {name!r}")


@functools.cache
def read_version() -> str:
    """Return the version from the package's metadata, "0+unknown" if the package is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("selfsr")
    except PackageNotFoundError:
        return "0+unknown"
