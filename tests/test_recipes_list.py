"""`selfsr recipes list`: one line each, whole names, filters, and JSON."""

import json

import pytest
from typer.testing import CliRunner

from selfsr import cli
from selfsr.recipe import shipped_recipes

runner = CliRunner()


@pytest.mark.parametrize("columns", ["40", "80", "200", ""])
def test_each_recipe_has_one_line_with_its_name(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = runner.invoke(cli.app, ["recipes", "list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", *shipped_recipes()]
    if columns in ("80", "200"):
        assert max(map(len, lines)) <= int(columns)


def test_filters_and_json() -> None:
    result = runner.invoke(cli.app, ["recipes", "list", "--gan", "--small", "--scale", "4", "--json"])
    recipes = json.loads(result.stdout)
    names = {recipe["name"] for recipe in recipes}
    assert {"small_esrgan_ssl_x4", "small_realesrgan_ssl_x4"} <= names
    assert all(name.startswith("small_") for name in names)
    assert all(recipe["gan"] and recipe["scales"] == [4] and recipe["method"] == "gan" for recipe in recipes)
    full = json.loads(runner.invoke(cli.app, ["recipes", "list", "--network", "rrdb", "--no-gan", "--json"]).stdout)
    assert [recipe["name"] for recipe in full] == ["rrdb_x4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "edrs"], "got edrs; did you mean edsr?"),
        (["--scale", "5"], "got 5; choose one of these."),
        (["--network", "srcnn", "--gan"], "got none left; give fewer of them."),
    ],
)
def test_filters_that_leave_nothing_are_errors(options: list[str], message: str) -> None:
    result = runner.invoke(cli.app, ["recipes", "list", *options])
    assert str(result.exception).endswith(message)
