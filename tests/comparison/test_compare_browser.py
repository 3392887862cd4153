"""The page of a comparison in a real browser: at three widths, by keys and by clicks."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

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
    "--virtual-time-budget=8000",
    "--dump-dom",
)

# Plays a reader; what it finds is left in an attribute of the document.
READER = """
(async () => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const first = (query, root = document) => root.querySelector(query);
  // Without a screen, frames come late or not at all.
  const wait = () => new Promise((done) => setTimeout(() => (viewer.draw(), done()), 120));
  const press = (key, type = "keydown", node = document.body) =>
    node.dispatchEvent(new KeyboardEvent(type, { key, bubbles: true, cancelable: true }));
  const pixel = (pane, x, y) => [...viewer.panes[pane].context.getImageData(x, y, 1, 1).data];
  const label = (pane) => viewer.panes[pane].canvas.getAttribute("aria-label");
  const seen = {};
  await wait();
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.panes = all(".pane").filter((pane) => !pane.hidden).length;
  seen.labels = [label(0), label(1)];
  seen.flip = all("#flip button").map((button) => button.textContent);
  seen.table = all("#scores thead th").map((cell) => cell.textContent.trim());
  seen.best = all("#scores td.best").length;

  const hrKey = String(viewer.data.versions.indexOf("HR") + 1);
  press(hrKey);
  await wait();
  seen.held = label(0);
  seen.other = label(1);
  press(hrKey, "keyup");
  await wait();
  seen.released = label(0);

  const pane = viewer.panes[1].canvas;
  pane.focus();
  press("=", "keydown", pane);
  const before = viewer.center;
  press("ArrowRight", "keydown", pane);
  seen.moved = viewer.center[0] - before[0] > 0;
  // One pixel of HR covers 8 x 8 of the screen, all of one color: no interpolation.
  first('button[title^="One pixel"]').click();
  for (let i = 0; i < 5; i++) press("+");
  await wait();
  seen.zoom = viewer.zoom;
  const { width, height } = viewer.panes[0].canvas;
  const left = Math.round(width / 2 - viewer.center[0] * viewer.zoom);
  const top = Math.round(height / 2 - viewer.center[1] * viewer.zoom);
  const x = left + viewer.zoom * Math.round((width / 2 - left) / viewer.zoom);
  const y = top + viewer.zoom * Math.round((height / 2 - top) / viewer.zoom);
  const block = [];
  for (let i = 0; i < viewer.zoom; i++) block.push(String(pixel(0, x + i, y + i)));
  seen.colors = new Set(block).size;
  seen.opaque = pixel(0, x, y)[3];

  press("n");
  await wait();
  seen.next = label(0);
  press("p");
  first("#places .place-head button").click();
  await wait();
  seen.place = viewer.data.places[0].image === viewer.image;
  seen.places = all("#places h3").map((node) => node.textContent);

  press("b");
  await wait();
  seen.blindHidden = getComputedStyle(first("#scores")).display;
  seen.blindLabels = [label(0), label(1)];
  const shown = first("#viewer").textContent + first("#blind").textContent;
  seen.blindNames = viewer.data.models.some((name) => shown.includes(name));
  seen.blindOptions = all(".pane select option").some((option) => viewer.data.models.includes(option.textContent));
  const choices = [];
  for (let i = 0; i < viewer.data.images.length; i++) {
    choices.push(viewer.blind.state.orders[viewer.image][0]);
    if (i === 1) {
      all("#blind-card .votes button")[0].click();
    } else press("a");
    await wait();
  }
  seen.tally = viewer.blind.countVotes();
  seen.expected = viewer.data.models.map((name) => [name, choices.filter((one) => one === name).length]);
  seen.shown = all("#blind table tr").map((row) => [row.cells[0].textContent, Number(row.cells[1].textContent)]);
  const record = viewer.blind.exportVotes();
  seen.votes = record.votes.map((vote) => vote.voted && vote.order.includes(vote.vote));
  seen.after = getComputedStyle(first("#scores")).display;
  seen.errors = document.documentElement.dataset.errors ?? "";
  document.documentElement.dataset.seen = JSON.stringify(seen);
})().catch((error) => (document.documentElement.dataset.seen = JSON.stringify({ failure: String(error) })));
"""
# Chromium has no window of less than 500 px, so the page is in a frame of the width.
FRAME = """<!doctype html><html><style>body{{margin:0}}</style>
<iframe id="page" src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script>
setTimeout(() => {{
  const root = document.getElementById("page").contentDocument.documentElement;
  const tables = [...root.querySelectorAll(".scroll")].every((node) => node.scrollWidth <= node.clientWidth + 2000);
  document.documentElement.dataset.seen = JSON.stringify({{
    overflow: root.scrollWidth - {width}, ready: root.dataset.ready, errors: root.dataset.errors ?? "", tables,
    panes: [...root.querySelectorAll(".pane")].filter((pane) => !pane.hidden).length,
    canvas: root.querySelector(".pane canvas").clientWidth,
  }});
}}, 2500);
</script></html>"""


def read_seen(page, profile, *flags):
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not done.stdout.strip():
        pytest.skip(f"the browser does not start here: {done.stderr.strip().splitlines()[-1:]}")
    found = re.search(r'<html[^>]*\bdata-seen="([^"]*)"', done.stdout)
    assert found, done.stdout[:300]
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def page(run_command, models, hr, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "compare.html"
    status, _, _ = run_command(
        "compare", models / "wide.safetensors", models / "slim.safetensors", "--data", hr, "-o", out
    )
    assert status == 0
    return out


def test_viewer_keys_blind_test_and_places(page, tmp_path):
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{READER}</script></body>")
    read = tmp_path / "read.html"
    read.write_text(text, encoding="utf-8")
    seen = read_seen(read, tmp_path / "profile", "--window-size=1280,900")
    assert seen.pop("failure", None) is None
    assert seen["errors"] == ""
    assert seen["overflow"] <= 0
    assert seen["panes"] == 2
    assert [label.split(",")[0] for label in seen["labels"]] == ["Pane 1: wide", "Pane 2: slim"]
    assert seen["flip"] == ["1 wide", "2 slim", "3 bicubic", "4 LR", "5 HR"]
    assert seen["table"][0] == "Model"
    assert any(title.startswith("PSNR-Y") for title in seen["table"])
    assert seen["best"] >= len(seen["table"]) - 1
    assert seen["held"].startswith("Pane 1: HR")
    assert seen["other"].startswith("Pane 2: slim")
    assert seen["released"].startswith("Pane 1: wide")
    assert seen["moved"]
    assert seen["zoom"] == 8
    assert seen["colors"] == 1
    assert seen["opaque"] == 255
    assert "i1" in seen["next"]
    assert seen["place"]
    assert seen["places"][0] == "Where the models differ most"
    assert any("is worst" in title for title in seen["places"])
    assert (seen["blindHidden"], seen["after"]) == ("none", "block")
    assert [label.split(",")[0] for label in seen["blindLabels"]] == ["Pane 1: Output A", "Pane 2: Output B"]
    assert not seen["blindNames"]
    assert not seen["blindOptions"]
    assert seen["tally"] == seen["expected"] == seen["shown"]
    assert sum(count for _, count in seen["tally"]) == 3
    assert seen["votes"] == [True, True, True]


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_page_has_no_sideways_scroll(page, tmp_path, width):
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=page.as_uri(), width=width), encoding="utf-8")
    flags = (f"--window-size={max(width, 500)},900", "--allow-file-access-from-files")
    seen = read_seen(frame, tmp_path / "profile", *flags)
    assert seen["errors"] == ""
    assert seen["ready"] == "yes"
    assert seen["overflow"] <= 0
    assert seen["panes"] == 2
    assert seen["canvas"] >= 150


def test_page_bounds_images_and_says_what_is_left_out(run_command, models, tmp_path, monkeypatch):
    from factories import texture
    from selfsr.comparison import page as page_module
    from selfsr.images.files import DecodedImage, write_image

    for index in range(5):
        write_image(tmp_path / "big" / f"b{index}.png", DecodedImage(texture(index, 160, 120)))
    monkeypatch.setattr(page_module, "LONGEST_PX", 100)
    monkeypatch.setattr(page_module, "PAGE_BYTES", 1)
    out = tmp_path / "compare.html"
    run_command(
        "compare", models / "wide.safetensors", models / "slim.safetensors", "--data", tmp_path / "big", "-o", out,
        "--max-images", "2",
    )  # fmt: skip
    text = out.read_text(encoding="utf-8")
    assert "The page has 2 of 5 images, evenly spaced; --max-images shows more." in text
    assert "b0 100 x 100 of 120 x 160" in text
    assert "1 further images are left out, since the page has reached" in text
