"""The `data` part of a recipe with several sources, each with its share of the samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfsr.data.augment import AugmentSpec
from selfsr.data.datasets import Dataset
from selfsr.data.sources import MixedDataset
from selfsr.data.spec import AUGMENT, FolderSpec, OneSource, PairsSpec
from selfsr.degrade.presets import Degradation
from selfsr.errors import InputError, describe_value
from selfsr.spec import DropNulls, EntryName, Spec


class SourceSpec(Spec):
    """One of several sources of training images."""

    share: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="its share of the samples, in any unit: the shares are divided by their sum; 0 leaves it out",
    )
    data: OneSource = Field(description="its images, with a degradation or pairs of its own")


class SourcesSpec(Spec):
    """Several sources of training images, with a share of the samples for each.

    Use it to train on pairs and on degraded images together, on two degradations, or to see a small folder more often.
    """

    kind: Literal["sources"]
    sources: Annotated[dict[EntryName, SourceSpec], DropNulls] = Field(
        description="the sources by names of your choice; null removes one"
    )
    channels: Literal[1, 3] = Field(3, description="channels of the network, for all sources")
    augment: AugmentSpec | None = Field(None, description=AUGMENT)

    @model_validator(mode="before")
    @classmethod
    def _share_channels(cls, document: Any) -> Any:
        """Give the sources the channels that they leave out."""
        sources = document.get("sources") if isinstance(document, dict) else None
        if not isinstance(sources, dict) or "channels" not in document:
            return document
        changed = {}
        for name, source in sources.items():
            data = source.get("data") if isinstance(source, dict) else None
            if isinstance(data, dict):
                source = {**source, "data": {"channels": document["channels"], **data}}
            changed[name] = source
        return {**document, "sources": changed}

    @model_validator(mode="after")
    def _check_sources(self) -> "SourcesSpec":
        if not self.used:
            shares = {name: source.share for name, source in self.sources.items()}
            raise ValueError(
                f"the shares of sources must have a sum above 0, got {describe_value(shares)}; give one a share"
            )
        for name, source in self.used.items():
            if source.data.channels != self.channels:
                raise ValueError(
                    f"sources.{name}.data.channels must be that of all, {self.channels}, got {source.data.channels}; "
                    "leave it out"
                )
            if source.data.augment is not None:
                raise ValueError(
                    f"sources.{name}.data.augment must be null, since samples are mixed over all sources, got shares; "
                    "move it to data.augment"
                )
        without = [name for name, source in self.used.items() if source.data.masks is None]
        if 0 < len(without) < len(self.used):
            raise ValueError(
                f"sources.{without[0]}.data.masks must be a folder, since another source has masks, got null; give all "
                "sources masks or none"
            )
        return self

    @property
    def used(self) -> dict[str, SourceSpec]:
        """The sources with a share."""
        return {name: source for name, source in self.sources.items() if source.share > 0}

    @property
    def parts(self) -> dict[str, FolderSpec | PairsSpec]:
        """The folders of all sources that are used, by their place in a recipe."""
        return {f"data.sources.{name}.data": source.data for name, source in self.used.items()}

    @property
    def masks(self) -> Path | None:
        """The masks of the first source; None if no source has masks."""
        return next(iter(self.used.values())).data.masks

    @property
    def degrade(self) -> Degradation | None:
        """The degradation of the largest share that has one; None if no source has one."""
        sources = sorted(self.used.values(), key=lambda source: -source.share)
        degradations = (getattr(source.data, "degrade", None) for source in sources)
        return next((degradation for degradation in degradations if degradation is not None), None)

    @property
    def has_degraded_lr(self) -> bool:
        """Whether LR of a source can differ from bicubic LR."""
        return any(source.data.has_degraded_lr for source in self.used.values())

    def build_each(self, crops_px: Mapping[int, int]) -> Sequence[MixedDataset]:
        """Return the datasets by a mapping from scale to the side of the HR crop.

        Raises:
            InputError: a source cannot be used; the message begins with its place in the recipe.
        """
        by_source: dict[str, Sequence[Dataset]] = {}
        for name, source in self.used.items():
            try:
                by_source[name] = source.data.build_each(crops_px)
            except InputError as error:
                raise InputError(f"data.sources.{name}: {error}") from error
        shares = [source.share for source in self.used.values()]
        return [
            MixedDataset({name: datasets[index] for name, datasets in by_source.items()}, shares)
            for index in range(len(crops_px))
        ]


DataSpec = Annotated[FolderSpec | PairsSpec | SourcesSpec, Field(discriminator="kind")]
