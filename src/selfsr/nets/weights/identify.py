"""Identify the network of a weights file: what a recipe writes to train it, and what `selfsr inspect` prints."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError
from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.published import read_spec
from selfsr.nets.weights.detect import detect_network, detect_with_spandrel, is_derived
from selfsr.nets.weights.folder import is_input
from selfsr.nets.weights.read import read_weights


@dataclass(frozen=True)
class FileNetwork:
    """The network of a weights file.

    Attributes:
        architecture: its name in messages; spandrel's name if only spandrel knows it.
        spec: what a recipe writes as `network` to train it; None if it cannot be trained here.
        scales: the scales that it upscales by; empty if the tensors fit any.
        channels: channels of its input: 1 is gray, 3 is RGB.
        parameters: numbers in the file, without constants that the network computes for itself; of a network on a
            pretrained base, those that are trained.
        tensors: number of tensors in the file.
        precision: number of tensors of each dtype, such as `{"float32": 40}`.
        section: the part of the file that has the weights, such as `params_ema`; empty if the file is only weights.
        metadata: the entries of the file's metadata.
    """

    architecture: str
    spec: NetworkSpec | None
    scales: tuple[int, ...]
    channels: int
    parameters: int
    tensors: int
    precision: dict[str, int]
    section: str
    metadata: dict[str, str]


def identify_network(path: Path) -> FileNetwork:
    """Read which network a weights file contains; the same files that `load_model` opens.

    Raises:
        InputError: there is no such file, no weights in it, or a network that neither we nor spandrel know.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> from selfsr.nets.edsr import EdsrSpec
        >>> from selfsr.nets.weights import save_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "net.safetensors"
        ...     save_weights(path, EdsrSpec(features=8, blocks=1).build(scale=2), {})
        ...     identify_network(path).spec
        EdsrSpec(kind='edsr', features=8, blocks=1, res_scale=1.0)
    """
    weights = read_weights(path)
    detected = detect_network(path, weights)
    if detected is not None:
        spec, name, scales, channels = detected.spec, detected.spec.name, detected.scales, detected.channels
    else:
        descriptor = detect_with_spandrel(path, weights.tensors)
        spec, name = read_spec(descriptor), descriptor.architecture.id
        scales, channels = (descriptor.scale,), descriptor.input_channels
    has_base = spec is not None and spec.has_base

    def is_trained(key: str) -> bool:
        return not is_derived(key) and not (has_base and is_input(key))

    return FileNetwork(
        architecture=name,
        spec=spec,
        scales=scales,
        channels=channels,
        parameters=sum(tensor.numel() for key, tensor in weights.tensors.items() if is_trained(key)),
        tensors=len(weights.tensors),
        precision=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in weights.tensors.values())),
        section=weights.section,
        metadata=weights.metadata,
    )


def require_trainable(path: Path) -> tuple[NetworkSpec, FileNetwork]:
    """Return the network of a weights file from which a training starts.

    Raises:
        InputError: the file cannot be opened, or its network cannot be trained here.
        OSError: the file cannot be read.
    """
    network = identify_network(path)
    if network.spec is None:
        raise InputError(
            f"start_from: expected a network that can be trained here, got {path} with {network.architecture}; "
            "choose another file."
        )
    return network.spec, network
