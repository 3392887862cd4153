"""The documentation site: built strictly, without network access, and with every key of a recipe."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import selfsr
from selfsr import losses
from selfsr.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]

needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="needs mkdocs-material and mkdocstrings: pip install --group docs",
)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    pytest.importorskip("pymdownx.slugs", reason="needs mkdocs: pip install --group docs")
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once; a broken link, an anchor that is not there or an unlisted page is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    # Any request over the network would go to this port, where nobody answers.
    nobody = "http://127.0.0.1:9"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "http_proxy": nobody, "https_proxy": nobody}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@needs_mkdocs
def test_site_has_every_public_name(site: Path) -> None:
    page = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    for module in (selfsr, losses):
        for name in module.__all__:
            assert f'id="{module.__name__}.{name}"' in page, name


@needs_mkdocs
def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="(https?:[^"]+)"', text)
        assert not loaded, f"{page.relative_to(site)} loads {loaded}"


@needs_mkdocs
def test_home_page_links_to_pages_of_the_site(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="selfsim/"' in page
    assert ".md" not in "".join(re.findall(r'href="([^"]*)"', page))


def test_recipe_page_has_every_kind_and_key(generator: ModuleType) -> None:
    page = generator.recipe_page()
    schema = Recipe.model_json_schema()
    sections = {
        match[1]: match[2] for match in re.finditer(r'<a id="(part-[\w-]+)"></a>\n(.*?)(?=<a id=|\Z)', page, re.DOTALL)
    }
    assert len(sections) == len(schema["$defs"])
    for name, definition in schema["$defs"].items():
        section = sections[generator._anchor(name)]
        for key, value in definition.get("properties", {}).items():
            if key == "kind":
                for kind in [value["const"]] if "const" in value else value["enum"]:
                    assert f"`{kind}`" in section.strip().splitlines()[0], name
            else:
                assert f"| `{key}` |" in section, f"{name}.{key}"
    for key in schema["properties"]:
        assert f"| `{key}` |" in page


def test_recipe_page_names_the_paper_of_every_network(generator: ModuleType) -> None:
    networks = generator.recipe_page().split("\n## Network\n")[1].split("\n## ")[0]
    kinds = networks.split("\n### ")[1:]
    assert kinds
    for section in kinds:
        prose = section.split("\n|")[0]
        if section.startswith(("`spandrel`", "`from_file`")):  # any network; docs/checkpoints.md lists them
            continue
        assert re.search(r"\b(19|20)\d\d\b|arXiv", prose), f"the network has no paper: {prose[:60]}"


def test_recipe_page_anchors_are_unique_and_linked_ones_exist(generator: ModuleType) -> None:
    page = generator.recipe_page()
    anchors = re.findall(r'<a id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    headings = [generator._slug(title) for title in re.findall(r"^## (.+)$", page, re.MULTILINE)]
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(anchors) | set(headings)


@pytest.mark.parametrize(
    ("text", "source", "page", "expected"),
    [
        ("[a](docs/gan.md#one-step)", "README.md", "index.md", "[a](gan.md#one-step)"),
        ("[a](docs/studies)", "README.md", "index.md", "[a](studies/README.md)"),
        ("[a](CONTRIBUTING.md)", "README.md", "index.md", "[a](contributing.md)"),
        ("[a](LICENSE)", "README.md", "index.md", "a"),
        ("[a](../README.md)", "docs/gan.md", "gan.md", "[a](index.md)"),
        ("[a](../gan.md)", "docs/studies/README.md", "studies/README.md", "[a](../gan.md)"),
        ("![a](cost.svg)", "docs/gan.md", "gan.md", "![a](cost.svg)"),
        ("[a](https://example.org/b)", "README.md", "index.md", "[a](https://example.org/b)"),
        ("[a](#here)", "README.md", "index.md", "[a](#here)"),
        ("`[a](LICENSE)`", "README.md", "index.md", "`[a](LICENSE)`"),
        ("[`a`](LICENSE)", "README.md", "index.md", "`a`"),
        ("[`a`](LICENSE), `[b](LICENSE)`, [`c`](LICENSE)", "README.md", "index.md", "`a`, `[b](LICENSE)`, `c`"),
        ("```\n[a](LICENSE)\n```", "README.md", "index.md", "```\n[a](LICENSE)\n```"),
    ],
)
def test_links_lead_to_pages_of_the_site(
    generator: ModuleType, text: str, source: str, page: str, expected: str
) -> None:
    assert generator.adapt_links(text, source=source, page=page) == expected
