"""The architectures that spandrel opens, with the options of their classes.

This file imports spandrel when a function is called, not before.
"""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from torch import nn

from selfsr.errors import describe_value, find_similar

# The names under which spandrel's classes take the scale, the channels of their input and of their output.
_SCALE = {"upscale", "upscale_factor", "up_scale", "scale", "upscaling_factor"}
_INPUT = {"in_chans", "in_channels", "num_in_ch", "in_nc", "in_ch", "inp_channels", "img_channel", "n_colors"}
_OUTPUT = {"out_channels", "num_out_ch", "out_nc", "out_ch", "out_chans"}
# Options of a published network where the class has the settings of another task as default.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ATD": {"upsampler": "pixelshuffle"},
    "DRCT": {"upsampler": "pixelshuffle"},
    "SwinIR": {"upsampler": "pixelshuffle", "window_size": 8},
    "Swin2SR": {"upsampler": "pixelshuffle", "window_size": 8},
    "GRL": {"upsampler": "pixelshuffle"},
    "SAFMN": {"dim": 36},
    "SAFMNBCIE": {"dim": 36},
    "MixDehazeNet": {"out_chans": 4},
}
# The scales that each class can be built for, if it does not take any scale.
_ANY_SCALE = (1, 2, 3, 4, 8)
_SCALES: dict[str, tuple[int, ...]] = {
    "AuraSR": (4,),
    "ESRGAN": (1, 2, 4, 8),
    "FDAT": (1, 2, 3, 4),
    "GRL": (2, 3, 4, 8),
    "MMRealSR": (4,),
    "RCAN": (2, 3, 4, 8),
    "SAFMNBCIE": (1,),
    "SwiftSRGAN": (1, 2, 4, 8),
    "UpCunet2x": (2,),
    "UpCunet2x_fast": (2,),
    "UpCunet3x": (3,),
    "UpCunet4x": (4,),
}
# Files that an option names would be opened, so no recipe and no weights file may set it.
_CLOSED = {"decoder_load_path"}
# Not from an image to an image: inpainting needs a mask. The faces of these two have one fixed size.
_EXCLUDED = {"LaMa", "GFPGAN", "RestoreFormer"}


@dataclass(frozen=True)
class Architecture:
    """A network class of spandrel.

    Attributes:
        name: spandrel's name of the architecture, or that of the class if an architecture has several classes.
        id: spandrel's name of the architecture.
        net: the class.
        options: the parameters of its constructor that a recipe may set, with their defaults.
        scale: the parameter that takes the scale; None if the class has one fixed scale.
        channels: the parameters that take the number of channels.
    """

    name: str
    id: str
    net: type[nn.Module]
    options: Mapping[str, inspect.Parameter]
    scale: str | None
    channels: tuple[str, ...]

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales that the class can be built for; a class without a parameter for it restores only."""
        return _SCALES.get(self.name, (1,) if self.scale is None else _ANY_SCALE)

    def default(self, option: str) -> Any:
        """Return the value of an option that is left out; `inspect.Parameter.empty` if it must be given."""
        return _DEFAULTS.get(self.name, {}).get(option, self.options[option].default)

    def arguments(self, options: Mapping[str, Any], scale: int, channels: int) -> dict[str, Any]:
        """Return the arguments of the class for the options of a recipe, a scale and a number of channels."""
        arguments = {name: channels for name in self.channels} | _DEFAULTS.get(self.name, {}) | dict(options)
        if self.scale is not None:
            several = isinstance(inspect.signature(self.net.__init__).parameters[self.scale].default, list)
            arguments[self.scale] = [scale] if several else scale
        return arguments


@cache
def read_architectures() -> dict[str, Architecture]:
    """Return spandrel's image-to-image architectures by name, also of spandrel_extra_arches if it is installed."""
    from spandrel import MAIN_REGISTRY

    if find_spec("spandrel_extra_arches"):
        importlib.import_module("spandrel_extra_arches").install(ignore_duplicates=True)
    architectures = {}
    for support in MAIN_REGISTRY.architectures():
        arch = support.architecture
        module = importlib.import_module(type(arch).__module__)
        nets = [net for net in vars(module).values() if inspect.isclass(net) and issubclass(net, nn.Module)]
        for net in nets if arch.id not in _EXCLUDED else ():
            name = arch.id if len(nets) == 1 else net.__name__
            architectures[name] = _read(name, arch.id, net)
    return architectures


def find_architecture(name: str) -> Architecture:
    """Return an architecture by name.

    Raises:
        ValueError: there is none of this name; the message has the nearest.
    """
    known = read_architectures()
    if name not in known:
        by_case = {other.lower(): other for other in known}
        near = difflib.get_close_matches(name.lower(), by_case, 1, 0.7)
        names = ", ".join(sorted(known, key=str.lower))
        advice = f"; did you mean {by_case[near[0]]}?" if near else ""
        raise ValueError(f"architecture must be one of {names}, got {describe_value(name)}{advice}")
    return known[name]


def check_options(arch: Architecture, options: Mapping[str, Any]) -> None:
    """Check the options of a recipe against the constructor of the class.

    Raises:
        ValueError: an option is unknown, is set by the recipe elsewhere, is missing, or has a wrong type.
    """
    for name, value in options.items():
        key = f"options.{name}"
        if name == arch.scale:
            raise ValueError(f"{key} is the recipe's scale, got {describe_value(value)}; set scale and leave it out")
        if name not in arch.options:
            near = find_similar(name, arch.options)
            advice = f"did you mean {near}?" if near else f"known options are {', '.join(arch.options)}"
            raise ValueError(f"{key}: unknown option of {arch.name}; {advice}")
        _check_type(key, arch.options[name], arch.default(name), value)
    for name in arch.options:
        if arch.default(name) is inspect.Parameter.empty and name not in options and name not in arch.channels:
            raise ValueError(f"options.{name} of {arch.name} has no default, got none; add it")


def is_plain(value: Any) -> bool:
    """Return whether a value can be written into a recipe."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(is_plain, value.values()))
    return isinstance(value, str | int | float | bool | NoneType)


def _read(name: str, id: str, net: type[nn.Module]) -> Architecture:
    parameters = dict(inspect.signature(net.__init__).parameters)
    del parameters["self"]
    empty = inspect.Parameter.empty
    scale = next((parameter for parameter in parameters if parameter in _SCALE), None)
    names = _INPUT | _OUTPUT | ({"channels"} if name == "AuraSR" else set())
    channels = tuple(parameter for parameter in parameters if parameter in names)
    options = {
        option: parameter
        for option, parameter in parameters.items()
        if option != scale and option not in _CLOSED and (parameter.default is empty or is_plain(parameter.default))
    }
    return Architecture(name, id, net, options, scale, channels)


def _check_type(key: str, parameter: inspect.Parameter, default: Any, value: Any) -> None:
    """Check a value by the annotation of its parameter if it lists words, else by the type of the default."""
    words = get_args(parameter.annotation) if get_origin(parameter.annotation) is Literal else ()
    if words and value not in words:
        raise ValueError(f"{key} must be one of {', '.join(map(str, words))}, got {describe_value(value)}")
    if default is None or default is inspect.Parameter.empty or (value is None and "None" in str(parameter.annotation)):
        expected: tuple[type, ...] = (int, float, str, bool, list, tuple, dict, NoneType)
        text = "a plain value"
    elif isinstance(default, bool):
        expected, text = (bool,), "true or false"
    elif isinstance(default, int) and "float" not in str(parameter.annotation):
        expected, text = (int,), "a whole number"
    elif isinstance(default, int | float):
        expected, text = (int, float), "a number"
    elif isinstance(default, str):
        expected, text = (str,), "a word"
    else:
        expected, text = (list, tuple), "a list"
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected) or not is_plain(value):
        raise ValueError(f"{key} must be {text}, got {describe_value(value)}")
    if isinstance(default, list | tuple) and isinstance(value, list | tuple) and {*map(type, default)} == {int}:
        wrong = [part for part in value if type(part) is not int]
        if wrong:
            raise ValueError(f"{key} must be a list of whole numbers, got {describe_value(wrong[0])} in it")
