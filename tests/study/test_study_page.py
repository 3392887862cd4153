"""The page of a study: self-contained, well-formed, with the study's own numbers, and drawn without an error."""

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chromium import Chromium
from selfsr.study import open_study, summarize
from selfsr.study.folder import write_definition

PLAIN = {1: [(0, 20.0), (10, 30.0), (20, 32.0)], 2: [(0, 20.0), (10, 31.0), (20, 33.0)]}
PACED = {1: [(0, 20.0), (10, 32.0), (20, 33.0)], 2: [(0, 20.0), (10, 31.0), (20, 32.5)]}


class Page(HTMLParser):
    """Parses strictly enough to notice a tag that is not closed; keeps what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_startendtag(self, tag, attrs):
        self._note(dict(attrs))

    def handle_starttag(self, tag, attrs):
        self._note(dict(attrs))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def _note(self, attributes):
        self.references += [attributes[name] for name in ("src", "href", "action", "data") if name in attributes]


@pytest.fixture
def page(workspace: Path, write_runs: Callable) -> Path:
    """Return the page of two recipes, the first with both seeds of both arms, the second with one of each."""
    text = (workspace / "claim.yaml").read_text()
    text = text.replace("base: tiny.yaml", "recipes: {short: tiny.yaml, longer: tiny.yaml}")
    (workspace / "claim.yaml").write_text(text.replace("hard first", "hard <b>first</b>"))
    plan, folder = open_study(Path("claim.yaml"))
    write_definition(plan, folder)
    write_runs(plan, folder, {"plain": PLAIN, "paced": PACED})
    shutil.rmtree(folder / "runs/longer-paced-seed2")
    (folder / "runs/short-paced-seed1/report.html").write_text("<p>report")
    summarize(plan, folder)
    return workspace / folder / "study.html"


def test_page_is_complete_and_self_contained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    inside = [ref for ref in parsed.references if not ref.startswith(("#", "data:"))]
    assert inside == ["runs/short-paced-seed1/report.html"]
    assert "url(" not in re.sub(r"url\((#|\$\{|`#)", "", text)
    assert not re.search(r"https?://|@import|\bfetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    assert "hard &lt;b&gt;first" in text


def test_page_has_the_scores_and_the_number_of_seeds(page: Path) -> None:
    text = unescape(re.sub(r"<[^>]+>|\s+", " ", page.read_text(encoding="utf-8")))
    text = re.sub(r" +", " ", text)
    head = "2 recipes, 2 arms, 2 seeds; 7 of 8 runs are finished. "
    assert head + "The metric is PSNR-Y; runs of the same seed are compared to plain." in text
    assert "paced, short 2 seeds, seeds disagree +0.250 dB" in text
    assert "paced, longer 1 seed, one pair +1.000 dB" in text
    assert "One seed cannot separate a difference from chance" in text
    assert "Unfinished runs are not in the results: longer-paced-seed2 (step 0 of 20)." in text
    assert "Bicubic: 28.000 dB. Seeds compared: 1, 2." in text


def test_charts_have_mean_and_range_over_the_seeds(page: Path) -> None:
    found = re.search(r'id="chart-data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    data = json.loads(found[1])
    scores, difference, *of_longer = data["charts"]
    assert [line["run"] for line in scores["lines"]] == [0, 1]
    assert scores["lines"][0]["y"] == [20.0, 30.5, 32.5]
    assert scores["lines"][0]["low"] == [20.0, 30.0, 32.0]
    assert scores["lines"][0]["high"] == [20.0, 31.0, 33.0]
    assert [line["run"] for line in difference["lines"]] == [1]
    assert difference["lines"][0]["y"] == [0.0, 1.0, 0.25]
    assert difference["lines"][0]["low"] == [0.0, 0.0, -0.5]
    assert of_longer[0]["lines"][0]["low"] is None  # one seed has no range


@pytest.mark.browser
def test_scripts_draw_lines_and_bands(browser: Chromium, page: Path) -> None:
    for width in (390, 1280, 1920):
        browser.open(page, width, touch=width < 500)
        assert browser.run("document.documentElement.dataset.errors") is None
        assert browser.find_wide_elements() == []
        assert browser.find_overlaps() == []
        count = "document.querySelectorAll('{}').length"
        assert browser.run(count.format(".plot .line")) == 6
        assert browser.run(count.format(".plot .band")) == 3
        assert browser.run(count.format("h3.chart-group")) == 2
        assert browser.run("document.querySelector('legend').textContent") == "Arms"
        assert browser.run(count.format("input[type=range]")) == 0  # nothing here is noisy enough to be smoothed
        # The main table is scrolled, in its box and with a hint, on a phone only.
        assert browser.run("document.querySelector('#comparison .hint').checkVisibility()") == (width == 390)


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_difference_has_a_color_from_three_agreeing_seeds_on(
    workspace: Path, write_runs: Callable, seeds: int
) -> None:
    text = (workspace / "claim.yaml").read_text()
    (workspace / "claim.yaml").write_text(text.replace("[1, 2]", str(list(range(1, seeds + 1)))))
    plan, folder = open_study(Path("claim.yaml"))
    write_definition(plan, folder)
    curves = {
        arm: {seed: [(0, 20.0), (10, 30.0), (20, 32.0 + seed + gain)] for seed in range(1, seeds + 1)}
        for arm, gain in (("plain", 0.0), ("paced", 0.5))
    }
    write_runs(plan, folder, curves)
    summarize(plan, folder)
    page = (workspace / folder / "study.html").read_text(encoding="utf-8")
    assert f'<span class="num gain {"level" if seeds == 2 else "up"}">+0.500</span>' in page
