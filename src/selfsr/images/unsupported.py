"""The error for files that are intact, but of a kind that is not read."""

from selfsr.errors import InputError


class UnsupportedSamplesError(InputError):
    """The samples are of a kind that is not read, such as floating point. Its message lacks the file's name."""
