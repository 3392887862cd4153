"""GAN runs in the report: the fixed crop through training, with its artifact map."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from selfsr.losses.artifact import artifact_map
from selfsr.report import write_report
from selfsr.report.pictures import load_pictures
from selfsr.report.timeline import WHITE, timelines
from selfsr.runfolder.read import read_runs


@pytest.fixture
def gan_run(make_run, tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "gan")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["method"]["kind"] = "gan"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


def test_each_moment_is_the_crop_with_its_artifact_map(gan_run: Path) -> None:
    (run,) = read_runs([gan_run])
    pictures = load_pictures([run], 0, [])
    found = timelines([run], pictures, 0, [])
    assert [timeline.picture for timeline in found] == list(run.samples)
    (strip,) = found[0].strips
    assert [moment.step for moment in strip.moments] == [0, 200, 400, 600, 800, 1000]

    sample = run.samples[found[0].picture]
    hr, sr = (np.array(Image.open(path).convert("RGB")) for path in (sample.hr, sample.sr[1000]))
    truth = decoded(found[0].truth)
    places = np.lib.stride_tricks.sliding_window_view(hr, truth.shape)[:, :, 0]
    top, left = np.argwhere((places == truth).all((2, 3, 4)))[0]
    window = (slice(top, top + found[0].side), slice(left, left + found[0].side))
    np.testing.assert_array_equal(decoded(strip.moments[-1].image), sr[window])

    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in (sr, hr)]
    artifacts = artifact_map(*tensors)[0, 0].numpy()[window]
    assert strip.moments[-1].level == pytest.approx(1000 * artifacts.mean() / WHITE, rel=1e-5)
    shown = decoded(strip.moments[-1].artifacts)[..., 0] / 255
    np.testing.assert_allclose(shown, np.sqrt(np.clip(artifacts / WHITE, 0, 1)), atol=0.6 / 255)
    # The fixture's outputs begin as noise and become the ground truth.
    assert strip.moments[0].level > 5 * strip.moments[-1].level


def test_the_page_has_a_timeline_for_gans_alone(gan_run: Path, two_run_page: Path, tmp_path: Path) -> None:
    page = write_report([gan_run], tmp_path / "report.html").read_text()
    assert page.count('class="timeline"') == 3
    assert "Artifact map at step 1000" in page
    assert 'id="timeline"' not in two_run_page.read_text()
