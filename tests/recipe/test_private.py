"""No folder of the machine is in the recipe that weights files contain, whichever option names it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from run_folders import train
from selfsr.nets.weights.load import read_metadata
from selfsr.recipe import Recipe, parse_recipe, read_yaml
from selfsr.recipe.private import dump_public_recipe, hide_folders, hide_folders_in_json

SECRET = "/home/jane/secret"


def list_specs(annotation: Any, seen: dict[type[BaseModel], None]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in seen:
            seen[annotation] = None
            for field in annotation.model_fields.values():
                list_specs(field.annotation, seen)
                for metadata in field.metadata:
                    list_specs(metadata, seen)
        return
    for part in get_args(annotation):
        list_specs(part, seen)


def list_path_options() -> Iterator[tuple[type[BaseModel], str, Any]]:
    """Yield each option of the recipe that has a path, with a value for it."""
    seen: dict[type[BaseModel], None] = {}
    list_specs(Recipe, seen)
    for spec in seen:
        for name, field in spec.model_fields.items():
            text = repr(field.annotation)
            if "Path" in text or name == "start_from":
                path = f"{SECRET}/last" if name == "start_from" else Path(SECRET, "last")
                yield spec, name, path
                if "dict[int" in text:
                    yield spec, name, {2: path}
                if "tuple[" in text and "Path, ..." in text:
                    yield spec, name, (path,)


OPTIONS = list(list_path_options())


def test_the_options_with_paths_are_found() -> None:
    names = {name for _, name, _ in OPTIONS}
    assert {"hr", "lr", "masks", "weights", "start_from", "teacher", "autoencoder"} <= names


@pytest.mark.parametrize(("spec", "name", "value"), OPTIONS, ids=[f"{s.__name__}.{n}" for s, n, _ in OPTIONS])
def test_every_path_of_a_recipe_keeps_its_last_component_only(spec: type[BaseModel], name: str, value: Any) -> None:
    hidden = hide_folders(spec.model_construct(**{name: value}))
    expected = {2: "last"} if isinstance(value, dict) else ["last"] if isinstance(value, tuple) else "last"
    assert hidden[name] == expected
    assert "jane" not in json.dumps(hidden)


def test_other_texts_and_numbers_stay(tiny: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    values = {
        "a": "body\\.(0|1)",
        "b": 2,
        "c": None,
        "d": [0.5, "word"],
        "e": "C:\\Users\\jane\\x.pth",
        "f": "/home/jane",
    }
    assert hide_folders(values) == {**values, "e": "x.pth", "f": "~"}
    assert json.loads(hide_folders_in_json('{"autoencoder": "/home/jane/vae", "n": [1]}')) == {
        "autoencoder": "vae",
        "n": [1],
    }
    recipe = parse_recipe(tiny, "test")
    document = read_yaml(dump_public_recipe(recipe), "test")
    assert document["data"]["hr"] == "train"
    assert document["evaluate"]["sets"]["test"]["hr"] == "test"
    assert parse_recipe(document, "test").optimizers == recipe.optimizers


def test_weights_of_a_run_have_no_folder_and_its_recipe_has_them(tiny: dict, tmp_path: Path, photos: Path) -> None:
    run = train(tiny, tmp_path / "run")
    for name in ("last", "best"):
        text = json.dumps(read_metadata(run / "weights" / f"{name}.safetensors"))
        assert str(photos) not in text
        assert "hr: train" in text
    assert f"hr: {photos}/train" in (run / "recipe.yaml").read_text()
