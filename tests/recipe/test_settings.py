"""Values of `--set` and of recipe files: words and paths as they stand, YAML 1.2, encodings, and names."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from factories import recipe_error
from selfsr.errors import InputError
from selfsr.recipe import Recipe, dump_recipe, load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.recipe.settings import read_value
from selfsr.recipe.yaml12 import write_yaml
from selfsr.study.spec import Study

# Folders that YAML reads as something else: a comment, a list, a number, a boolean, a null, a date, an alias, a tag.
FOLDERS = [
    "photos #2",
    "#Dia 2",
    "[x] y",
    "2024",
    "010",
    "1e-4",
    "no",
    "off",
    "true",
    "null",
    "a: b",
    "- a",
    "*a",
    "!x",
]
FOLDERS += ["{x}", "'quoted'", "2024-01-01", " space ", "1_000", "~x", "%s", "@a", "`b`", "über", "名前", "x=y"]


def load(tiny: dict, tmp_path: Path, *settings: str) -> Recipe:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return load_recipe(path, settings)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_taken_as_it_stands_and_survives_the_run_folder(tiny: dict, tmp_path: Path, folder: str) -> None:
    recipe = load(tiny, tmp_path, f"data.hr={folder}", f"evaluate.sets.more.hr={folder}")
    assert recipe.evaluate is not None
    assert recipe.evaluate.sets["more"].hr == Path(folder)
    for loaded in (recipe, parse_recipe(read_yaml(dump_recipe(recipe), "x"), "x")):
        assert loaded.data.hr == Path(folder)
        assert loaded == recipe
    if not folder.startswith("{") and folder != "null":
        short = load(tiny, tmp_path, f"evaluate.sets.test={folder}")
        assert short.evaluate is not None
        assert short.evaluate.sets["test"].hr == Path(folder)


def test_words_are_taken_as_they_stand(tiny: dict, tmp_path: Path) -> None:
    assert load(tiny, tmp_path, "data.cache=off").data.cache == "off"
    assert load(tiny, tmp_path, "name=2024").name == "2024"
    assert load(tiny, tmp_path, "name=no").name == "no"
    assert load(tiny, tmp_path, "workers=auto").workers == "auto"
    assert load(tiny, tmp_path, "workers=0").workers == 0


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("start_from", "null", None),
        ("data.masks", "null", None),
        ("data.hr", "null", "null"),
        ("data.lr", "{2: a, 3: b}", {2: "a", 3: "b"}),
        ("data.lr", "a #2", "a #2"),
        ("data.degrade", "null", None),
        ("data.degrade", "bsrgan", "bsrgan"),
        ("optimizers.d", "null", None),
        ("evaluate", "null", None),
        ("evaluate.metrics", "[lpips, on]", ["lpips", "on"]),
        ("method.terms.x.weight", "{match: largest, calibrate_steps: 3}", {"match": "largest", "calibrate_steps": 3}),
        ("method.terms.x.weight", "1e-2", 0.01),
        ("clip_norm", "null", None),
        ("method.terms.x.two_sided", "true", True),
        ("steps", "010", 10),
        ("no.such.key", "2", 2),
    ],
)
def test_the_type_of_an_option_decides(path: str, text: str, value: Any) -> None:
    assert read_value(Recipe, {}, path, text) == value


def test_booleans_may_be_yes_and_no(tiny: dict, tmp_path: Path) -> None:
    for text, value in (("yes", True), ("off", False)):
        terms = load(tiny, tmp_path, f"method.terms.similarity.two_sided={text}").method.terms
        assert terms["similarity"].two_sided is value


def test_a_setting_without_a_value_is_refused(tiny: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--set data\.hr: expected a value after the equals sign, got nothing\.$"):
        load(tiny, tmp_path, "data.hr=")
    with pytest.raises(InputError, match=r"--set start_from: .* got nothing; write null for none\.$"):
        load(tiny, tmp_path, "start_from=")


def test_a_study_takes_paths_as_they_stand() -> None:
    assert read_value(Study, {}, "base", "2024") == "2024"
    assert read_value(Recipe, {}, "data.hr", "photos #2") == "photos #2"
    assert read_value(Study, {}, "seeds", "[1,2]") == [1, 2]


def test_home_is_expanded_and_an_unknown_home_is_a_name(tiny: dict, tmp_path: Path) -> None:
    recipe = load(tiny, tmp_path, "data.hr=~/x", "evaluate.sets.test=~/y", "start_from=~nobody-here/z")
    assert recipe.evaluate is not None
    assert recipe.data.hr == Path(os.path.expanduser("~/x"))
    assert recipe.evaluate.sets["test"].hr == Path(os.path.expanduser("~/y"))
    assert recipe.start_from == "~nobody-here/z"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("on", "off", "yes", "no", "y", "n", "On", "OFF", "1_000", "1:30", "2024-01-01")],
        *[(word, None) for word in ("null", "~", "Null", "NULL", "")],
        *[("true", True), ("False", False), ("010", 10), ("0o10", 8), ("0x1F", 31), ("-3", -3), ("+2", 2)],
        *[("1e-4", 1e-4), ("1.", 1.0), (".5", 0.5), ("1.5E3", 1500.0), ("-.inf", -float("inf"))],
    ],
)
def test_plain_words_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert read_yaml(f"a: {text}", "x") == {"a": value}
    assert type(read_yaml(f"a: {text}", "x")["a"]) is type(value)
    assert read_yaml(write_yaml({"a": text, "b": value}), "x") == {"a": text, "b": value}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("? [a]\n: 1", "x line 1: expected valid YAML, got an error: a key must be a word or a number."),
        ('a: "\\0"', "x line 1: expected valid YAML, got an error: text must not contain the character NUL."),
        ("a: !!int x", "x line 1: expected valid YAML, got an error: expected an integer, got 'x'."),
        ("a: !!bool maybe", "x line 1: expected valid YAML, got an error: expected true or false, got 'maybe'."),
        ("a: !!float x", "x: expected valid YAML, got a value that cannot be read: could not convert string"),
        ("a: " + "[" * 3000, "x: expected valid YAML, got values nested too deeply; flatten them."),
        ("a: " + "9" * 5000, "x: expected valid YAML, got a value that cannot be read: Exceeds the limit"),
        ("a: !!python/object:os.system x", "could not determine a constructor for the tag"),
        ("a: \x07", "unacceptable character"),
    ],
)
def test_odd_yaml_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        read_yaml(text, "x")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_recipes_with_a_byte_order_mark_are_read(tiny: dict, tmp_path: Path, encoding: str) -> None:
    tiny["data"]["hr"] = "Fotos für 名前"
    path = tmp_path / "my.yaml"
    path.write_bytes(yaml.safe_dump(tiny, allow_unicode=True).encode(encoding))
    assert load_recipe(path).data.hr == Path("Fotos für 名前")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("# für\nscale: 2\n".encode("latin-1"), "my.yaml line 1: expected text in UTF-8, got byte 0xfc, which another"),
        ("scale: 2\nname: 训练\n".encode("gbk"), "my.yaml line 2: expected text in UTF-8, got byte 0x"),
        ("name: a\n".encode("utf-16-le"), "got text in UTF-16 without a byte-order mark; pass the recipe file."),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "expected YAML text, such as a recipe, got a binary file; pass the recipe"),
        (b"\xff\xfea", "my.yaml line 1: expected text in UTF-8, got a part; save the file as UTF-8 in your editor."),
        (b"#" * (2**24 + 1), "expected YAML text, such as a recipe, got a file of more than 16 MB; pass the recipe"),
    ],
)
def test_other_encodings_are_refused_with_the_file(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert sentence in str(error.value)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "old.pth"])
def test_a_weights_file_is_no_recipe(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"last.{suffix}"
    tensors = {"a": torch.zeros(3)}
    if suffix == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=suffix == "pth")
    with pytest.raises(InputError, match=r"expected YAML text, such as a recipe, got a weights file; pass the recipe"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["..", ".", "...", "a/b", "/tmp/x", "a\\b", "", "a b", "x" * 151, "a\n"])
def test_names_that_leave_the_folder_of_runs_are_refused(tiny: dict, name: str) -> None:
    assert recipe_error({**tiny, "name": name}).startswith("my.yaml: name: expected ")
    with pytest.raises(InputError, match="name: expected "):
        parse_recipe({**tiny, "name": name}, "x")


def test_names_of_parts_have_no_slash(tiny: dict) -> None:
    tiny["evaluate"]["sets"] = {"../outside": "photos"}
    assert "expected a name without slashes that is not empty, got '../outside'" in recipe_error(tiny)
    tiny["evaluate"]["sets"] = {"My set": "photos"}
    assert parse_recipe(tiny, "x").evaluate is not None


def test_values_in_messages_have_a_readable_length(tiny: dict, tmp_path: Path) -> None:
    for key in ("name", "scale", "steps", "network", "data", "evaluate", "x" * 3000):
        for value in ("x" * 3000, ["y" * 50] * 500, {"z" * 3000: "z" * 3000}):
            assert 20 < len(recipe_error({**tiny, key: value})) < 1000
    with pytest.raises(InputError) as error:
        load(tiny, tmp_path, f"steps.{'x' * 3000}=1")
    assert len(str(error.value)) < 500


def test_a_number_for_a_folder_gets_the_advice_of_quotes(tiny: dict) -> None:
    tiny["data"]["hr"] = 2024
    assert recipe_error(tiny).endswith(", got 2024; put it in quotes.")


def test_aliases_that_grow_without_end_are_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    path = tmp_path / "my.yaml"
    path.write_text("\n".join([*lines, "steps: *a39"]))
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert len(str(error.value)) < 3000


def test_null_for_an_entry_that_is_missing_is_refused() -> None:
    recipe = shipped_recipes()["small_edsr_x2"]
    with pytest.raises(InputError) as error:
        load_recipe(recipe, ["method.terms.pixl=null"])
    assert str(error.value) == (
        "--set method.terms.pixl=null: expected an entry of method.terms to remove, got 'pixl'; did you mean pixel?"
    )
    assert load_recipe(recipe, ["method.terms.pixel.pace=null"]).method.terms["pixel"].pace is None
