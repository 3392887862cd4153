"""The names that one network's tensors go by in different projects, and how to get from one to the other."""

import re

from torch import Tensor

from selfsr._checks import InputError
from selfsr.nets.edsr import VALUE_RANGE

Tensors = dict[str, Tensor]

# EDSR as BasicSR names it, and the authors' names; the body's last layer follows after counting blocks.
_EDSR_BASICSR = (
    (r"conv_first\.", "head.0."),
    (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
    (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
    (r"conv_after_body\.", "body.{blocks}."),
    (r"upsample\.", "tail.0."),
    (r"conv_last\.", "tail.1."),
)
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


def as_edsr(tensors: Tensors) -> Tensors | None:
    """Return the tensors of an EDSR under the authors' names and value range, or None if it is none.

    A network of convolutions, ReLU and sums that was trained on the range 0 to 1 computes the same on 0 to 255
    once all its biases are multiplied by 255.

    Raises:
        InputError: the mean shifts mix colours, which ours do not.
    """
    if {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"} <= set(tensors):
        blocks = str(count(tensors, r"body\.(\d+)\."))
        tensors = _renamed(tensors, [(old, new.replace("{blocks}", blocks)) for old, new in _EDSR_BASICSR])
    if not {"head.0.weight", "body.0.body.0.weight", "tail.0.0.weight", "tail.1.weight"} <= set(tensors):
        return None
    if "sub_mean.bias" not in tensors:
        return tensors
    for name in ("sub_mean.weight", "add_mean.weight"):
        shift = tensors[name][:, :, 0, 0]
        if bool((shift - shift.diagonal().diag()).any()):
            raise InputError(f"EDSR weights: {name} must be diagonal, got a matrix that mixes colours.")
    # The DIV2K mean is below 0.45 of the range: the bias of a shift tells 1 from 255 at a glance.
    if float(tensors["sub_mean.bias"].abs().max()) < 1:
        return {name: t * VALUE_RANGE if name.endswith(".bias") else t for name, t in tensors.items()}
    return tensors


def is_rrdb(names: Tensors) -> bool:
    """Say whether these are the tensors of an RRDB under its first names, as spandrel's class has them."""
    return "model.1.sub.0.RDB1.conv1.0.weight" in names


def rrdb_first_names(tensors: Tensors) -> Tensors:
    """Rename an RRDB's tensors from either later layout to the first one; other tensors stay as they are."""
    for layout in (0, 1):
        if _RRDB[1][layout].format(n=0, k=1, m=1) + "weight" in tensors:
            blocks = count(tensors, r"(?:body|RRDB_trunk)\.(\d+)\.")
            stages = sum(bool(re.fullmatch(r"(conv_up|upconv)\d\.weight", name)) for name in tensors)
            return _renamed(tensors, _rrdb_rules(layout, 2, blocks, stages))
    return tensors


def rrdb_published_names(tensors: Tensors) -> Tensors:
    """Rename an RRDB's tensors from the first layout to today's, which BasicSR's tools need and all others read."""
    blocks = count(tensors, r"model\.1\.sub\.(\d+)\.RDB")
    # model.0 and .1 come before the stages, which take three numbers each; four layers with parameters are not in one.
    stages = (count(tensors, r"model\.(\d+)\.") - 5) // 3
    return _renamed(tensors, _rrdb_rules(2, 0, blocks, stages))


def upsampling_tail(tensors: Tensors) -> re.Pattern[str]:
    """Return what matches the names of those layers that a network has otherwise, or not at all, at another scale."""
    for stack in ("body", "feats"):  # Compact and RealPLKSR: the last layer of one long stack
        if all(name.startswith((f"{stack}.", "to_img.")) for name in tensors):
            last = count(tensors, stack + r"\.(\d+)\.") - 1
            return re.compile(rf"({stack}\.{last}|to_img)\.")
    return re.compile(r"(tail|upsample|upsampler|conv_up\d)\.")


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


def _renamed(tensors: Tensors, rules: list[tuple[str, str]]) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in rules:
            if re.match(pattern, name):
                name = re.sub("^" + pattern, new, name)
                break
        renamed[name] = tensor
    return renamed
