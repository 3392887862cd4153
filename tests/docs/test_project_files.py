"""The files around the code: what they promise must be there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_changelog_starts_with_unreleased_changes() -> None:
    assert re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == "Unreleased"


def test_citation_names_both_papers() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["project"]["license"]
    papers = {reference["identifiers"][0]["value"] for reference in citation["references"]}
    assert papers == {"arXiv:2003.03113", "arXiv:2408.05713"}


def test_bug_form_asks_for_doctor_recipe_and_command() -> None:
    fields = {field["id"]: field for field in yaml.safe_load(read(".github/ISSUE_TEMPLATE/bug.yml"))["body"]}
    assert {"doctor", "recipe", "command"} <= fields.keys()
    assert "selfsr doctor" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"]


@pytest.mark.parametrize("form", sorted(path.name for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")))
def test_issue_form_has_the_parts_of_a_form(form: str) -> None:
    content = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{form}"))
    if form != "config.yml":
        assert {"name", "description", "body"} <= content.keys()
        assert all({"type", "id", "attributes"} <= field.keys() for field in content["body"])


def test_workflow_tests_every_python_and_the_oldest_torch() -> None:
    jobs = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]
    assert {"lint", "linux", "macos", "windows", "docs"} <= jobs.keys()
    matrix = jobs["linux"]["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert matrix["python"] == classifiers
    assert PROJECT["project"]["requires-python"] == f">={classifiers[0]}"
    (oldest,) = [entry["packages"] for entry in matrix["include"] if entry["torch"] == "oldest"]
    (floor,) = re.findall(r"torch>=([\d.]+)", " ".join(PROJECT["project"]["dependencies"]))
    assert f"torch=={floor}.*" in oldest


def test_workflow_runs_targets_of_the_makefile() -> None:
    commands = re.findall(r"make (\w+)", read(".github/workflows/test.yml"))
    assert {"lint", "unit", "docs"} == set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", read("Makefile"), re.MULTILINE)


def test_make_help_lists_every_target() -> None:
    makefile = read("Makefile")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    listed = re.findall(r'@echo "make (\w+)', makefile)
    assert set(listed) == set(phony.split()) - {"help"}


def test_decisions_are_numbered_and_listed() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", read("docs/adr/README.md"))
    assert listed == records
    for name in records:
        text = read(f"docs/adr/{name}")
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Evidence", "What would make us drop it"], name
        # The evidence has a command, and paths to code exist.
        assert re.search(r"^    (python|selfsr) ", text, re.MULTILINE), name
        for path in re.findall(r"`(src/[\w/.]+)`", text) + re.findall(r"\b((?:tests|bench)/[\w/.]+\.py)\b", text):
            assert (ROOT / path).exists(), f"{name} names {path}"


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_files_named_by_page_exist(page: Path) -> None:
    names = re.findall(r"(?<![\w/.])((?:[\w-]+/)+\w+\.py)\b", page.read_text(encoding="utf-8"))
    bases = (ROOT, ROOT / "src" / "selfsr")
    missing = [name for name in names if not any((base / name).exists() for base in bases)]
    assert not missing
