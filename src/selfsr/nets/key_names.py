"""Names of a network's tensors in different projects, and their translation."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from selfsr.nets.layers import VALUE_RANGE

NamedTensors = Mapping[str, Tensor]

# RRDB: today's names (BasicSR), those of 2018 to 2020 (BSRGAN, BebyGAN, mmsr), and the first names, which spandrel
# uses; {last} is the number of the layer after the last upsampling stage.
_RRDB = (
    ("conv_first.", "conv_first.", "model.0."),
    ("body.{n}.rdb{k}.conv{m}.", "RRDB_trunk.{n}.RDB{k}.conv{m}.", "model.1.sub.{n}.RDB{k}.conv{m}.0."),
    ("conv_body.", "trunk_conv.", "model.1.sub.{blocks}."),
    ("conv_up{u}.", "upconv{u}.", "model.{3u}."),
    ("conv_hr.", "HRconv.", "model.{last}."),
    ("conv_last.", "conv_last.", "model.{last+2}."),
)


def is_rrdb(names: NamedTensors) -> bool:
    """Return whether these are the tensors of an RRDB under its first names, which spandrel's class has.

    SPSR contains an RRDB but does not count as one: its tensors have these names in all programs.
    """
    return "model.1.sub.0.RDB1.conv1.0.weight" in names and "b_fea_conv.0.weight" not in names


def to_rrdb_first_names(tensors: NamedTensors) -> dict[str, Tensor]:
    """Rename an RRDB's tensors from either later layout to the first one; keep the names of other networks."""
    for layout in (0, 1):
        if _RRDB[1][layout].format(n=0, k=1, m=1) + "weight" in tensors:
            blocks = count_layers(tensors, r"(?:body|RRDB_trunk)\.(\d+)\.")
            stages = sum(bool(re.fullmatch(r"(conv_up|upconv)\d\.weight", name)) for name in tensors)
            return rename_keys(tensors, _rrdb_rules(layout, 2, blocks, stages))
    return dict(tensors)


def to_rrdb_published_names(tensors: NamedTensors) -> dict[str, Tensor]:
    """Rename an RRDB's tensors from the first layout to BasicSR's, which all programs read."""
    blocks = count_layers(tensors, r"model\.1\.sub\.(\d+)\.RDB")
    # model.0 and .1 come before the stages, which take three numbers each; four layers with parameters are not in one.
    stages = (count_layers(tensors, r"model\.(\d+)\.") - 5) // 3
    return rename_keys(tensors, _rrdb_rules(2, 0, blocks, stages))


def match_upsampling_tail(tensors: NamedTensors) -> re.Pattern[str]:
    """Return a pattern for the names of the layers that differ, or do not exist, at another scale."""
    for stack in ("body", "feats"):  # Compact and RealPLKSR: the last layer of one long stack
        if all(name.startswith((f"{stack}.", "to_img.")) for name in tensors):
            last = count_layers(tensors, stack + r"\.(\d+)\.") - 1
            return re.compile(rf"({stack}\.{last}|to_img)\.")
    levels = r"(img|residual|feat)_branch_[1-9]"  # LapSRN's, each a doubling of the one before
    return re.compile(rf"(tail|upsample|upsampler|upscale|upscale4x|deconv|conv_up\d|upconv\d|{levels})\.")


def count_layers(tensors: NamedTensors, pattern: str) -> int:
    """Return one more than the largest number that the group of `pattern` matches at the start of a name.

    Raises:
        ValueError: no name matches, or the number is far larger than the number of tensors.
    """
    numbers = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    if not numbers:
        raise ValueError(f"no tensor has a name that starts with {pattern}")
    if max(numbers) > 1000 + 10 * len(tensors):  # a caller may make a list of so many names
        raise ValueError(f"a tensor has number {max(numbers)} in its name, where {len(tensors)} tensors are in all")
    return max(numbers) + 1


def _rrdb_rules(source: int, target: int, blocks: int, stages: int) -> list[tuple[str, str]]:
    last = 3 * stages + 2
    rules = []
    for row in _RRDB:
        old, new = (
            row[i].replace("{blocks}", str(blocks)).replace("{last}", str(last)).replace("{last+2}", str(last + 2))
            for i in (source, target)
        )
        if "{u}" in old + new:
            for u in range(1, stages + 1):
                filled = [s.replace("{u}", str(u)).replace("{3u}", str(3 * u)) for s in (old, new)]
                rules.append((re.escape(filled[0]), filled[1]))
        else:
            pattern = re.escape(old)
            for letter in "nkm":
                pattern = pattern.replace(re.escape("{" + letter + "}"), rf"(?P<{letter}>\d+)")
                new = new.replace("{" + letter + "}", rf"\g<{letter}>")
            rules.append((pattern, new))
    return rules


def rename_keys(tensors: NamedTensors, rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename tensors by the first rule that matches: a pattern for the start of a name, and its replacement."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in rules:
            if re.match(pattern, name):
                name = re.sub("^" + pattern, new, name)
                break
        renamed[name] = tensor
    return renamed


def drop_mean_shift(tensors: NamedTensors) -> set[str]:
    """Return all names except those of the mean shifts."""
    return {name for name in tensors if not re.match(r"(sub|add)_mean\.", name)}


def layer_keys(*names: str) -> set[str]:
    """Return the names of the weight and the bias of each layer."""
    return {f"{name}.{part}" for name in names for part in ("weight", "bias")}


def infer_pixel_shuffle(tensors: NamedTensors, pattern: str) -> int:
    """Return the scale of an upsampling tail; `pattern` matches the names of its convolutions' weights."""
    scale = 1
    for name, tensor in tensors.items():
        if re.fullmatch(pattern, name):
            scale *= round((tensor.shape[0] / tensor.shape[1]) ** 0.5)
    return scale


def scale_biases(tensors: NamedTensors, factor: float) -> dict[str, Tensor]:
    """Convert weights to an internal value range that is `factor` times as large, by scaling all biases.

    This is exact for a network of convolutions, ReLU, leaky ReLU, PReLU, concatenations and sums.
    """
    return {name: tensor * factor if name.endswith(".bias") else tensor for name, tensor in tensors.items()}


def to_range_255(tensors: NamedTensors) -> dict[str, Tensor]:
    """Convert weights of the range 0 to 1 to 0 to 255; weights whose mean shift has range 255 stay."""
    shift = tensors.get("sub_mean.bias")
    # The mean of DIV2K is below 0.45 of the range, so the bias of a mean shift shows the range.
    is_range_1 = shift is not None and 0 < float(shift.abs().max()) < 1
    return scale_biases(tensors, VALUE_RANGE) if is_range_1 else dict(tensors)


def fold_span(tensors: NamedTensors) -> dict[str, Tensor]:
    """Leave out what SPAN only trains, so that each convolution is its fused one; other tensors stay as they are.

    `unfold_span` brings the file back into the trained form when it is read. Spandrel reads both.
    """
    fused = {name.removesuffix("eval_conv.weight") for name in tensors if name.endswith("eval_conv.weight")}
    trained = tuple(f"{layer}{part}." for layer in fused for part in ("sk", "conv.0", "conv.1", "conv.2"))
    return {name: tensor for name, tensor in tensors.items() if not (trained and name.startswith(trained))}


def unfold_span(tensors: NamedTensors) -> dict[str, Tensor]:
    """Give a SPAN that was folded for deployment (`eval_conv` only) the trained form that folds to the same numbers.

    SPAN trains a 1x1, a 3x3 and a 1x1 convolution and a 1x1 skip in place of each 3x3 convolution that it runs later.
    Here the 3x3 one contains that convolution, the 1x1 ones pass channels through, and the skip is 0.
    """
    folded = [name.removesuffix("eval_conv.weight") for name in tensors if name.endswith("eval_conv.weight")]
    if "block_1.c1_r." not in folded or any(f"{layer}sk.weight" in tensors for layer in folded):
        return dict(tensors)
    unfolded = dict(tensors)
    for layer in folded:
        weight = tensors[f"{layer}eval_conv.weight"]
        bias = tensors.get(f"{layer}eval_conv.bias")
        if weight.shape[2:] != (3, 3) or bias is None or bias.shape != weight.shape[:1]:
            return dict(tensors)
        outputs, inputs = weight.shape[:2]
        first = _make_like(weight, 2 * inputs, inputs, 1)
        first[:inputs, :, 0, 0] = torch.eye(inputs)
        middle = _make_like(weight, 2 * outputs, 2 * inputs, 3)
        middle[:outputs, :inputs] = weight
        middle_bias = weight.new_zeros(2 * outputs)
        middle_bias[:outputs] = bias
        last = _make_like(weight, outputs, 2 * outputs, 1)
        last[:, :outputs, 0, 0] = torch.eye(outputs)
        unfolded |= {
            f"{layer}sk.weight": _make_like(weight, outputs, inputs, 1),
            f"{layer}sk.bias": torch.zeros_like(bias),
            f"{layer}conv.0.weight": first,
            f"{layer}conv.0.bias": weight.new_zeros(2 * inputs),
            f"{layer}conv.1.weight": middle,
            f"{layer}conv.1.bias": middle_bias,
            f"{layer}conv.2.weight": last,
            f"{layer}conv.2.bias": torch.zeros_like(bias),
        }
    return unfolded


def _make_like(tensor: Tensor, outputs: int, inputs: int, kernel_px: int) -> Tensor:
    return tensor.new_zeros(outputs, inputs, kernel_px, kernel_px)
