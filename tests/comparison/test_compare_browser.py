"""The page of a comparison in a real browser: at three widths, by keys and by clicks."""

import pytest

from chromium import Chromium

pytestmark = pytest.mark.browser

# Plays a reader and returns what is then on the page.
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
  return seen;
})()
"""


@pytest.fixture(scope="module")
def page(run_command, models, hr, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "compare.html"
    status, _, _ = run_command(
        "compare", models / "wide.safetensors", models / "slim.safetensors", "--data", hr, "-o", out
    )
    assert status == 0
    return out


def test_viewer_keys_blind_test_and_places(browser: Chromium, page):
    browser.open(page)
    seen = browser.run(READER)
    assert seen["errors"] == ""
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


def test_nothing_is_too_wide_or_over_anything(browser: Chromium, page):
    for width in (390, 1280, 1920):
        browser.open(page, width, touch=width < 500)
        assert browser.run("document.documentElement.dataset.errors") is None
        assert browser.find_wide_elements() == []
        assert browser.find_overlaps() == []
        assert browser.run("document.querySelector('.pane canvas').clientWidth") >= 150
        hinted = browser.run("document.querySelector('#scores .hint').checkVisibility()")
        assert hinted == (width == 390)


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
