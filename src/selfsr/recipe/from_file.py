"""Write the network of the file that a recipe starts from into the recipe."""

import os
from typing import Any

from selfsr.errors import InputError, describe_value
from selfsr.nets.weights.detect import format_scales
from selfsr.nets.weights.find import find_model
from selfsr.nets.weights.identify import require_trainable


def replace_network(document: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's document with the network of the file `start_from` in place of `network: {kind: from_file}`.

    The scale and `data.channels` are those of the file where the document leaves them out. A document with another
    network is returned as it is.

    Raises:
        InputError: the recipe names no file, the file has no network that can be trained here, or the recipe has
            another scale or number of channels.
        OSError: the file cannot be read.
    """
    network = document.get("network")
    if not isinstance(network, dict) or network.get("kind") != "from_file" or len(network) > 1:
        return document
    start = document.get("start_from")
    if not isinstance(start, str):
        raise InputError(
            f"network.kind: from_file takes the network of the file start_from, got {describe_value(start)} there; "
            "set start_from to a weights file or to the name of a shipped model."
        )
    path = find_model(os.path.expanduser(start))
    spec, file = require_trainable(path)
    scale = document.get("scale", _only(file.scales))
    if scale is None:
        raise InputError(
            f"scale: expected the scale of the run, as {path} {_serves(file.scales)}, got none; add it to the recipe."
        )
    scales = [scale] if isinstance(scale, int) else scale
    if file.scales and isinstance(scales, list | tuple) and not set(scales) <= set(file.scales):
        raise InputError(
            f"scale: expected that of {path}, {format_scales(file.scales)}, got {describe_value(scale)}; leave scale "
            "out, or name the network instead of from_file and start with start_fit: tail."
        )
    replaced = {**document, "network": spec.model_dump(mode="json"), "scale": scale}
    if isinstance(data := document.get("data"), dict):
        channels = data.get("channels", file.channels)
        if channels != file.channels:
            raise InputError(
                f"data.channels: expected that of {path}, {file.channels}, got {describe_value(channels)}; leave it "
                "out."
            )
        replaced["data"] = {**data, "channels": channels}
    return replaced


def _only(scales: tuple[int, ...]) -> int | None:
    return scales[0] if len(scales) == 1 else None


def _serves(scales: tuple[int, ...]) -> str:
    return f"serves {format_scales(scales)}" if scales else "fits any scale"
