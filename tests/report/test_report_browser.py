"""The page in a real browser: its scripts run without an error, draw, and answer."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from selfsr.report import write_report

pytestmark = pytest.mark.browser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
    "--window-size=1280,900",
    "--dump-dom",
)

# Plays a reader; what it finds is left in an attribute of the document.
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
  seen.charts = all(".chart").length;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;

  const shown = () => all(".score").filter((score) => !score.hidden);
  seen.tables = shown().map((score) => score.dataset.metric);
  all(".toolbar button").find((button) => button.textContent === "SSIM-Y").click();
  seen.tablesAfter = shown().map((score) => score.dataset.metric);
  const images = () => all("tbody th", shown()[0]).map((cell) => cell.textContent);
  all("thead button", shown()[0])[2].click();
  seen.ascending = images();
  all("thead button", shown()[0])[2].click();
  seen.descending = images();

  const crop = first(".crop");
  const selects = all("select", crop);
  seen.sides = selects.map((select) => select.selectedOptions[0].textContent);
  change(selects[1], String(selects[1].options.length - 1));
  seen.badge = first(".badge.r", crop).textContent;
  seen.sameImage = all(".both img", crop)[0].src === all(".version img", crop)[selects[1].options.length - 1].src;
  const divider = first("input[type=range]", crop);
  change(divider, "25");
  seen.cut = first(".compare", crop).style.getPropertyValue("--cut");
  seen.spoken = divider.getAttribute("aria-valuetext");
  const picture = first(".image");
  all(".spot", picture)[1].click();
  seen.crops = all(".crop", picture).map((node) => !node.hidden);

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
  document.documentElement.dataset.seen = JSON.stringify(seen);
})().catch((error) => (document.documentElement.dataset.seen = JSON.stringify({ failure: String(error) })));
"""


def dom(page: Path, profile: Path) -> str:
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not done.stdout.strip():
        pytest.skip(f"the browser does not start here: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def attribute(text: str, name: str) -> str | None:
    found = re.search(rf'<html[^>]*\bdata-{name}="([^"]*)"', text)
    return unescape(found[1]) if found else None


def test_page_controls_work_in_a_browser(two_run_page, tmp_path):
    text = two_run_page.read_text(encoding="utf-8").replace("</body>", f"<script>{READER}</script></body>")
    read = tmp_path / "read.html"
    read.write_text(text, encoding="utf-8")
    result = dom(read, tmp_path / "profile")
    assert attribute(result, "errors") is None
    assert attribute(result, "ready") == "yes"
    seen = json.loads(attribute(result, "seen") or "{}")
    assert seen.pop("failure", None) is None

    assert seen["charts"] == 10
    assert len(seen["paths"]) == 18  # ten quantities of two runs, but similarity and pace of one
    assert min(seen["paths"]) > 40
    assert seen["overflow"] <= 0
    assert (seen["tables"], seen["tablesAfter"]) == (["psnr_y"], ["ssim_y"])
    assert seen["ascending"] == ["chelsea", "coffee", "astronaut"]
    assert seen["descending"] == ["astronaut", "coffee", "chelsea"]
    assert seen["sides"] == ["similar, start", "similar, step 1,000"]
    assert re.fullmatch(r"similar, step \d+\d+\.\d\d dB", seen["badge"])
    assert seen["sameImage"]
    assert seen["cut"] == "25%"
    assert re.fullmatch(r"similar, start up to 25 percent, then similar, step \d+", seen["spoken"])
    assert seen["crops"][:2] == [False, True]
    assert seen["logChanges"]
    assert seen["smoothingChanges"]
    assert seen["first"].startswith("step 20 ")
    assert seen["last"].startswith("step 1,000 ")
    assert seen["hiddenRun"] == 1
    assert re.fullmatch(r"step 200, mean \d\.\d\d", seen["weights"])
    assert seen["points"][:3] == [False, False, True]
    assert re.fullmatch(r"displacement 0 right, 0 down: \d\.\de-\d", seen["cell"])
    assert seen["errors"] == ""


def test_page_of_a_run_that_has_hardly_begun_has_no_errors(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": {"g": {"pixel": 0.5}}}\n{"step": 2, "lo')
    result = dom(write_report([run], tmp_path / "report.html"), tmp_path / "profile")
    assert attribute(result, "errors") is None
    assert attribute(result, "ready") == "yes"
    assert result.count('class="line"') == 1
    assert 'class="point"' in result  # a lone value is seen as a mark


def test_an_error_of_a_script_would_be_noticed(two_run_page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        two_run_page.read_text(encoding="utf-8").replace("</body>", "<script>nothing.at.all()</script></body>"),
        encoding="utf-8",
    )
    assert "nothing is not defined" in (attribute(dom(broken, tmp_path / "profile"), "errors") or "")
