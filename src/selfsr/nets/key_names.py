"""The names that one network's tensors go by in different projects, and how to get from one to the other."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from selfsr.nets.layers import VALUE_RANGE

Tensors = Mapping[str, Tensor]

# RRDB: today's names (BasicSR), those of 2018 to 2020 (BSRGAN, BebyGAN, mmsr), and the first ones, which spandrel
# keeps; {last} is the number of the layer after the last upsampling stage.
_RRDB = (
    ("conv_first.", "conv_first.", "model.0."),
    ("body.{n}.rdb{k}.conv{m}.", "RRDB_trunk.{n}.RDB{k}.conv{m}.", "model.1.sub.{n}.RDB{k}.conv{m}.0."),
    ("conv_body.", "trunk_conv.", "model.1.sub.{blocks}."),
    ("conv_up{u}.", "upconv{u}.", "model.{3u}."),
    ("conv_hr.", "HRconv.", "model.{last}."),
    ("conv_last.", "conv_last.", "model.{last+2}."),
)


def is_rrdb(names: Tensors) -> bool:
    """Say whether these are the tensors of an RRDB under its first names, as spandrel's class has them.

    SPSR, which has an RRDB within, is none: its tensors have these names in all programs.
    """
    return "model.1.sub.0.RDB1.conv1.0.weight" in names and "b_fea_conv.0.weight" not in names


def rrdb_first_names(tensors: Tensors) -> dict[str, Tensor]:
    """Rename an RRDB's tensors from either later layout to the first one; other tensors stay as they are."""
    for layout in (0, 1):
        if _RRDB[1][layout].format(n=0, k=1, m=1) + "weight" in tensors:
            blocks = count(tensors, r"(?:body|RRDB_trunk)\.(\d+)\.")
            stages = sum(bool(re.fullmatch(r"(conv_up|upconv)\d\.weight", name)) for name in tensors)
            return renamed(tensors, _rrdb_rules(layout, 2, blocks, stages))
    return dict(tensors)


def rrdb_published_names(tensors: Tensors) -> dict[str, Tensor]:
    """Rename an RRDB's tensors from the first layout to today's, which BasicSR's tools need and all others read."""
    blocks = count(tensors, r"model\.1\.sub\.(\d+)\.RDB")
    # model.0 and .1 come before the stages, which take three numbers each; four layers with parameters are not in one.
    stages = (count(tensors, r"model\.(\d+)\.") - 5) // 3
    return renamed(tensors, _rrdb_rules(2, 0, blocks, stages))


def upsampling_tail(tensors: Tensors) -> re.Pattern[str]:
    """Return what matches the names of those layers that a network has otherwise, or not at all, at another scale."""
    for stack in ("body", "feats"):  # Compact and RealPLKSR: the last layer of one long stack
        if all(name.startswith((f"{stack}.", "to_img.")) for name in tensors):
            last = count(tensors, stack + r"\.(\d+)\.") - 1
            return re.compile(rf"({stack}\.{last}|to_img)\.")
    levels = r"(img|residual|feat)_branch_[1-9]"  # LapSRN's, each a doubling of the one before
    return re.compile(rf"(tail|upsample|upsampler|upscale|upscale4x|deconv|conv_up\d|upconv\d|{levels})\.")


def count(tensors: Tensors, pattern: str) -> int:
    """Return one more than the largest number that `pattern` finds at the start of a name."""
    found = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    return max(found) + 1


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


def renamed(tensors: Tensors, rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename by the first rule (start of a name, its replacement) that fits; other names stay."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in rules:
            if re.match(pattern, name):
                name = re.sub("^" + pattern, new, name)
                break
        renamed[name] = tensor
    return renamed


def without_shift(tensors: Tensors) -> set[str]:
    """Return the names but for those of the mean shifts."""
    return {name for name in tensors if not re.match(r"(sub|add)_mean\.", name)}


def layers(*names: str) -> set[str]:
    """Return the names of the weight and the bias of each layer."""
    return {f"{name}.{part}" for name in names for part in ("weight", "bias")}


def pixel_shuffles(tensors: Tensors, pattern: str) -> int:
    """Return the scale of an upsampling tail, whose convolutions have the names that `pattern` matches."""
    scale = 1
    for name, tensor in tensors.items():
        if re.fullmatch(pattern, name):
            scale *= round((tensor.shape[0] / tensor.shape[1]) ** 0.5)
    return scale


def times_bias(tensors: Tensors, factor: float) -> dict[str, Tensor]:
    """Carry weights over to a value range that is `factor` times as large.

    A network of convolutions, ReLU (also leaky or PReLU), concatenation and sums computes the same there once all
    its biases are multiplied.
    """
    return {name: tensor * factor if name.endswith(".bias") else tensor for name, tensor in tensors.items()}


def of_range_255(tensors: Tensors) -> dict[str, Tensor]:
    """Carry weights of the range 0 to 1 over to 0 to 255; those whose mean shift is of that range stay."""
    shift = tensors.get("sub_mean.bias")
    # The DIV2K mean is below 0.45 of the range: the bias of a shift tells 1 from 255 at a glance.
    of_one = shift is not None and 0 < float(shift.abs().max()) < 1
    return times_bias(tensors, VALUE_RANGE) if of_one else dict(tensors)
