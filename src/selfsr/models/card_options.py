"""Read the options that only the maker of a model knows: author, license, description, training images."""

import datetime
import re
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, field_validator

from selfsr.errors import InputError
from selfsr.models.names import check_license, check_tag, is_model_name, make_id
from selfsr.recipe.reading import parse_settings, read_settings
from selfsr.spec import Spec

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class CardOptions(Spec):
    """The options of a card file. All are optional; the model states the facts of its training."""

    author: tuple[str, ...] = Field((), description="author of the model, or a list of them")
    license: str | None = Field(None, description="SPDX identifier of the license of the files, such as CC-BY-4.0")
    tags: tuple[str, ...] = Field((), description="tags of OpenModelDB, such as photo or general-upscaler")
    description: str = Field("", description="Markdown: what the model is for, its strengths and weaknesses")
    dataset: str = Field("", description="names of the training images; by default the name of their folder")
    dataset_size: PositiveInt | None = Field(None, description="number of training images")
    dataset_terms: str = Field("", description="terms of use of the training images, Markdown")
    pretrained_model_g: str | None = Field(
        None, description="OpenModelDB's name of the model from which the training started, such as 4x-PSNR"
    )
    pretrained_model_d: str | None = Field(
        None, description="OpenModelDB's name of the discriminator's start, likewise"
    )
    date: str | None = Field(None, description="date of publication, yyyy-mm-dd; by default today")
    url: str | None = Field(None, description="address of the folder from which the files will be downloaded")

    @field_validator("author", "tags", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("description", "dataset", "dataset_terms")
    @classmethod
    def _strip(cls, text: str) -> str:
        return text.strip()


def read_card_options(path: Path | None, **options: Any) -> CardOptions:
    """Read a card file, override its options by those of the command, and check them.

    Args:
        path: a YAML file with the options of `CardOptions`; None for no file.
        options: fields of `CardOptions`; those that are None or empty leave the file's value.

    Raises:
        InputError: the file is missing or wrong, or a value has a form that OpenModelDB refuses.
    """
    if path is not None and not path.is_file():
        raise InputError(
            f"--card: expected a YAML file, got {path}, which is {'a folder' if path.is_dir() else 'missing'}; "
            "write one with author, license, tags and description."
        )
    document = read_settings(path) if path is not None else {}
    document |= {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value}
    card = parse_settings(CardOptions, document, "export" if path is None else str(path))
    _check(card)
    return card


def today() -> str:
    """Return the date of today in UTC, yyyy-mm-dd."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _check(card: CardOptions) -> None:
    for author in card.author:
        if not make_id(author):
            raise InputError(f"--author: expected a name with letters or digits, got {author!r}; write one.")
    for tag in card.tags:
        check_tag(tag)
    if card.license is not None:
        check_license(card.license)
    for key in ("pretrained_model_g", "pretrained_model_d"):
        name = getattr(card, key)
        if name is not None and not is_model_name(name):
            raise InputError(f"{key}: expected a name of OpenModelDB such as 4x-PSNR, got {name!r}; look it up there.")
    if card.date is not None and not _is_date(card.date):
        raise InputError(f"date: expected yyyy-mm-dd, got {card.date!r}; write it in this form.")
    if card.url is not None and not card.url.startswith("https://"):
        raise InputError(
            f"--url: expected an address that begins with https://, got {card.url!r}; write the complete address."
        )


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return _DATE.fullmatch(text) is not None
