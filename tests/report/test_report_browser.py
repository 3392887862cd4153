"""The page in a real browser: nothing is too wide or drawn over anything, and its controls and keys work."""

import re
from pathlib import Path

import pytest

from chromium import Chromium
from selfsr.report import write_report

pytestmark = pytest.mark.browser

# Plays a reader with a mouse and returns what is then on the page.
READER = """
(async () => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const first = (query, root = document) => root.querySelector(query);
  const wait = () => new Promise((done) => setTimeout(done, 50));
  const change = (node, value) => {
    node.value = value;
    node.dispatchEvent(new Event("input"));
    node.dispatchEvent(new Event("change"));
  };
  const seen = {};
  seen.paths = all(".plot .line").map((path) => path.getAttribute("d").length);
  seen.charts = all(".chart h4").map((title) => title.textContent);
  seen.constants = first(".constants").textContent.replace(/\\s+/g, " ").trim();

  const shown = () => all(".score").filter((score) => !score.hidden);
  seen.tables = shown().map((score) => score.dataset.metric);
  all(".toolbar button").find((button) => button.textContent === "SSIM-Y").click();
  seen.tablesAfter = shown().map((score) => score.dataset.metric);
  const images = () => all("tbody th", shown()[0]).map((cell) => cell.textContent);
  all("thead button", shown()[0])[2].click();
  seen.ascending = images();
  all("thead button", shown()[0])[2].click();
  seen.descending = images();

  const image = first(".image");
  seen.versions = all(".version .label", image).map((label) => label.textContent.trim());
  const selects = all("select", image);
  seen.sides = selects.map((select) => select.selectedOptions[0].textContent);
  change(selects[1], String(selects[1].options.length - 1));
  seen.badge = first(".badge.r", image).textContent;
  const divider = first("input[type=range]", image);
  change(divider, "25");
  seen.cut = first(".compare", image).style.getPropertyValue("--cut");
  seen.spoken = divider.getAttribute("aria-valuetext");
  all("[role=radio]", image)[2].click();
  seen.chosen = all("[role=radio]", image).map((button) => button.getAttribute("aria-checked"));

  const loss = all(".chart").find((chart) => first("h4", chart).textContent === "Loss: pixel");
  const line = () => first(".line", loss).getAttribute("d");
  const before = line();
  first("button", loss).click();
  seen.logChanges = line() !== before;
  const smooth = line();
  change(first(".toolbar input[type=range]"), "0");
  seen.smoothingChanges = line() !== smooth;
  const plot = first(".plot", loss);
  plot.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
  seen.first = first(".readout", loss).textContent;
  plot.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
  seen.last = first(".readout", loss).textContent;
  const box = first(".runs input");
  box.click();
  seen.hiddenRun = all(".line", loss).length;
  box.click();

  const weights = first(".maps-card");
  change(first(".player input", weights), "0");
  seen.weights = first(".screen figcaption", weights).textContent;
  seen.cards = all("#weights > article").map((card) => card.hidden);
  change(first("#weights > .toolbar select"), "1");
  seen.cardsAfter = all("#weights > article").map((card) => card.hidden);
  const pins = all(".pin", first(".graphs"));
  pins[2].click();
  seen.points = all(".point", first(".graphs")).map((point) => !point.hidden);
  const graph = first(".point:not([hidden]) .graph");
  graph.scrollIntoView();
  await wait();
  const place = graph.getBoundingClientRect();
  graph.dispatchEvent(new PointerEvent("pointermove", {
    clientX: place.left + place.width / 2, clientY: place.top + place.height / 2,
  }));
  seen.cell = first(".reading").textContent;
  seen.errors = document.documentElement.dataset.errors ?? "";
  return seen;
})()
"""


def test_page_controls_work_in_a_browser(browser: Chromium, two_run_page: Path) -> None:
    browser.open(two_run_page)
    seen = browser.run(READER)
    assert seen["errors"] == ""
    assert len(seen["charts"]) == 9
    assert "Memory in use MB" not in seen["charts"]
    assert seen["constants"] == "Constant: Memory in use 812.5 MB 812.5 MB"
    assert len(seen["paths"]) == 16  # nine quantities of two runs, but similarity and pace of one
    assert min(seen["paths"]) > 40
    assert (seen["tables"], seen["tablesAfter"]) == (["psnr_y"], ["ssim_y"])
    assert seen["ascending"] == ["chelsea", "coffee", "astronaut"]
    assert seen["descending"] == ["astronaut", "coffee", "chelsea"]
    assert seen["versions"][:3] == ["1 LR", "2 bicubic", "3  similar, start"]
    assert seen["sides"] == ["similar, start", "similar, step 1,000"]
    assert re.fullmatch(r"similar, step \d+\d+\.\d\d dB", seen["badge"])
    assert seen["cut"] == "25%"
    assert re.fullmatch(r"similar, start up to 25 percent, then similar, step \d+", seen["spoken"])
    assert seen["chosen"][:3] == ["false", "false", "true"]
    assert seen["logChanges"]
    assert seen["smoothingChanges"]
    assert seen["first"].startswith("step 20 ")
    assert seen["last"].startswith("step 1,000 ")
    assert seen["hiddenRun"] == 1
    assert re.fullmatch(r"step 200, mean \d\.\d\d", seen["weights"])
    assert (seen["cards"], seen["cardsAfter"]) == ([False, True, True], [True, False, True])
    assert seen["points"][:3] == [False, False, True]
    assert re.fullmatch(r"displacement 0 right, 0 down: \d\.\de-\d", seen["cell"])


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_too_wide_or_over_anything(browser: Chromium, two_run_page: Path, width: int) -> None:
    browser.open(two_run_page, width, touch=width < 500)
    assert browser.run("document.documentElement.dataset.errors") is None
    assert browser.find_wide_elements() == []
    assert browser.find_overlaps() == []
    boxes = browser.run(
        "[...document.querySelectorAll('.score:not([hidden]) .scroll')].map((box) => "
        "[box.scrollWidth - box.clientWidth, box.previousElementSibling.checkVisibility(), box.tabIndex])"
    )
    # A table that is too wide scrolls in its box, with a hint. Only then the Tab key stops there.
    assert [(beyond > 1) == hinted == (tab == 0) for beyond, hinted, tab in boxes] == [True]
    assert boxes[0][1] == (width == 390)
    assert browser.count_tab_stops() < 50


def test_keys_flip_zoom_and_move(browser: Chromium, two_run_page: Path) -> None:
    browser.open(two_run_page)
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "Skip to the content"
    browser.press("Enter")
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent").startswith("Skip held-out/")
    for _ in range(10):
        browser.press("Tab")
        if browser.run("document.activeElement.type") == "range":
            break
    state = "({zoom: reportViewers[0].view.zoom, x: reportViewers[0].view.x, cut: document.activeElement.value})"
    badges = "[...document.querySelector('.image').querySelectorAll('.badge')].map((badge) => badge.firstChild.data)"
    sources = "new Set([...document.querySelectorAll('.image')][0].querySelectorAll('.both img')).size"
    start = browser.run(state)
    assert browser.run(badges) == ["similar, start", "similar, step 1,000"]
    shown = {}
    for key in ("a", "b", "1"):
        browser.press(key, hold=True)
        shown[key] = browser.run(badges)
        assert browser.run("[...document.querySelectorAll('.both')][0].querySelectorAll('img')[0].src") == browser.run(
            "[...document.querySelectorAll('.both')][0].querySelectorAll('img')[1].src"
        )
        browser.release(key)
    assert shown == {"a": ["similar, start"] * 2, "b": ["similar, step 1,000"] * 2, "1": ["LR"] * 2}
    assert browser.run(badges) == ["similar, start", "similar, step 1,000"]
    assert browser.run(sources) == 2

    browser.press("ArrowRight")
    assert float(browser.run(state)["cut"]) == float(start["cut"]) + 0.5
    browser.press("+")
    zoomed = browser.run(state)
    assert zoomed["zoom"] > start["zoom"]
    assert browser.run("document.querySelector('.compare img').style.imageRendering") == "pixelated"
    browser.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
                "{key: 'ArrowLeft', shiftKey: true, bubbles: true}))")  # fmt: skip
    assert browser.run(state)["x"] < zoomed["x"]
    browser.press("0")
    whole = browser.run("reportViewers[0].view")
    assert (whole["x"], whole["y"], whole["crop"]) == (112, 112, -1)
    browser.press("d")
    assert browser.run("document.querySelector('.compare').classList.contains('diff')")


def test_input_is_shown_at_the_size_of_the_ground_truth(browser: Chromium, two_run_page: Path) -> None:
    browser.open(two_run_page)
    browser.run("document.querySelector('.stage').scrollIntoView()")
    browser.press("1", hold=True)
    browser.wait(
        "[...document.querySelector('.both').querySelectorAll('img')].every((one) => one.naturalWidth === 112)"
    )
    sizes = browser.run(
        "[...document.querySelector('.both').querySelectorAll('img')].map((image) => "
        "image.getBoundingClientRect().width / reportViewers[0].view.zoom)"
    )
    browser.release("1")
    assert sizes == [pytest.approx(224)] * 2


def test_page_of_a_run_that_has_hardly_begun_has_no_errors(browser: Chromium, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": {"g": {"pixel": 0.5}}}\n{"step": 2, "lo')
    browser.open(write_report([run], tmp_path / "report.html"))
    assert browser.run("document.documentElement.dataset.errors") is None
    assert browser.run("document.documentElement.dataset.ready") == "yes"
    assert browser.run("document.querySelectorAll('.plot .line').length") == 1
    assert browser.run("document.querySelectorAll('.plot .point').length") == 1  # a lone value is seen as a mark
    # Sections that are empty have no place.
    assert browser.run("[...document.querySelectorAll('nav a')].map((link) => link.textContent)") == [
        "Curves",
        "Recipe",
    ]


def test_faults_would_be_noticed(browser: Chromium, two_run_page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    added = (
        '<p style="width:4000px">wide</p><div style="position:relative"><p class="one">first text</p>'
        '<p style="position:absolute;top:3px;left:0">second text</p></div><script>nothing.at.all()</script></body>'
    )
    broken.write_text(two_run_page.read_text(encoding="utf-8").replace("</body>", added), encoding="utf-8")
    browser.open(broken)
    assert "nothing is not defined" in browser.run("document.documentElement.dataset.errors")
    assert browser.find_wide_elements()[0].startswith("P. wide")
    assert browser.find_overlaps() == ['P.one "first text" and P. "second text"']
