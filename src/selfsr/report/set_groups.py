"""Group the evaluation sets of several runs, so that only scores of the same images are compared."""

import math
from dataclasses import dataclass
from typing import Any

from selfsr.evaluation.combined import finite_or_none
from selfsr.runfolder.read import RunFolder

# Bicubic's score on another device differs less than this, on other images or inputs more.
_SAME_BICUBIC_DB = 0.005


@dataclass(frozen=True)
class SetGroup:
    """An evaluation set as several runs have it: the same images, scale and inputs.

    Attributes:
        name: its name in `eval.jsonl`.
        title: its name on the page, unique among the groups.
        runs: indices of the runs that have it.
    """

    name: str
    title: str
    runs: list[int]


@dataclass(frozen=True)
class _SetIdentity:
    """Images, scale and inputs of a set; None or empty where a run has not recorded it."""

    images: frozenset[str]
    scale: int | None
    inputs: str | None
    bicubic_db: float | None

    def is_same_as(self, other: "_SetIdentity") -> bool:
        return (
            (not self.images or not other.images or self.images == other.images)
            and (self.scale is None or other.scale is None or self.scale == other.scale)
            and (self.inputs is None or other.inputs is None or self.inputs == other.inputs)
            and (
                self.bicubic_db is None
                or other.bicubic_db is None
                or math.isclose(self.bicubic_db, other.bicubic_db, rel_tol=0, abs_tol=_SAME_BICUBIC_DB)
            )
        )


def group_sets(runs: list[RunFolder]) -> list[SetGroup]:
    """Return the evaluation sets of all runs. Sets with one name but other images, scale or inputs stay apart."""
    grouped: dict[str, list[tuple[_SetIdentity, list[int]]]] = {}
    for index, run in enumerate(runs):
        for name in dict.fromkeys(name for line in run.evaluations for name in line["sets"]):
            identity = _identify(run, name)
            groups = grouped.setdefault(name, [])
            group = next((members for first, members in groups if first.is_same_as(identity)), None)
            if group is None:
                groups.append((identity, [index]))
            else:
                group.append(index)
    return [
        SetGroup(name, name if len(groups) == 1 else _make_title(name, identity, members, runs), members)
        for name, groups in grouped.items()
        for identity, members in groups
    ]


def describe_split_sets(groups: list[SetGroup]) -> list[str]:
    """Return a note about each name that sets of different images, scale or inputs share."""
    names = [group.name for group in groups]
    return [
        f"The runs have different sets called {name}: other images, scale or inputs. Their scores are in separate "
        "tables and charts."
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _identify(run: RunFolder, name: str) -> _SetIdentity:
    scores: dict[str, Any] = next(line["sets"][name] for line in reversed(run.evaluations) if name in line["sets"])
    scale, inputs = scores.get("scale", run.recipe.get("scale")), scores.get("lr")
    return _SetIdentity(
        frozenset(scores["images"]),
        scale if isinstance(scale, int) else None,
        inputs if isinstance(inputs, str) else None,
        finite_or_none(run.bicubic.get(name, {}).get("mean", {}).get("psnr_y")),
    )


def _make_title(name: str, identity: _SetIdentity, members: list[int], runs: list[RunFolder]) -> str:
    scale = "" if identity.scale is None else f"x{identity.scale}, "
    return f"{name} ({scale}{', '.join(runs[index].name for index in members)})"
