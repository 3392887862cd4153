"""The network of the file that a recipe starts from."""

from typing import ClassVar, Literal

from selfsr.nets.base import NetworkSpec


class FromFileSpec(NetworkSpec):
    """The network of the file `start_from`, with its options, scale and channels.

    Reading the recipe replaces it by the network itself, so that a run resumes without the file. A scale or a number
    of channels that the recipe gives must be that of the file.
    """

    title: ClassVar[str] = "network of a file"
    paper: ClassVar[str] = "depends on the file"
    convolutional: ClassVar[bool] = False

    kind: Literal["from_file"] = "from_file"
