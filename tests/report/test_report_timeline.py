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
from selfsr.report.images import load_images
from selfsr.report.timeline import ARTIFACT_MAX, build_timelines
from selfsr.runfolder.read import read_run_folders


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
    (run,) = read_run_folders([gan_run])
    timelines = build_timelines([run], load_images([run], 0, []), [])
    assert [timeline.name for timeline in timelines] == list(run.samples)
    (run_timeline,) = timelines[0].runs
    assert [frame.step for frame in run_timeline.frames] == [0, 200, 400, 600, 800, 1000]

    sample = run.samples[timelines[0].name]
    hr, sr = (np.array(Image.open(path).convert("RGB")) for path in (sample.hr, sample.sr[1000]))
    truth = decoded(timelines[0].hr)
    places = np.lib.stride_tricks.sliding_window_view(hr, truth.shape)[:, :, 0]
    top, left = np.argwhere((places == truth).all((2, 3, 4)))[0]
    window = (slice(top, top + timelines[0].side), slice(left, left + timelines[0].side))
    np.testing.assert_array_equal(decoded(run_timeline.frames[-1].image), sr[window])

    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in (sr, hr)]
    artifacts = artifact_map(*tensors)[0, 0].numpy()[window]
    assert run_timeline.frames[-1].level == pytest.approx(1000 * artifacts.mean() / ARTIFACT_MAX, rel=1e-5)
    shown = decoded(run_timeline.frames[-1].artifacts)[..., 0] / 255
    np.testing.assert_allclose(shown, np.sqrt(np.clip(artifacts / ARTIFACT_MAX, 0, 1)), atol=0.6 / 255)
    # The fixture's outputs begin as noise and become the ground truth.
    assert run_timeline.frames[0].level > 5 * run_timeline.frames[-1].level


def test_the_page_has_a_timeline_for_gans_alone(gan_run: Path, two_run_page: Path, tmp_path: Path) -> None:
    page = write_report([gan_run], tmp_path / "report.html").read_text()
    assert page.count('class="timeline"') == 3
    assert "Artifact map at step 1000" in page
    assert 'id="timeline"' not in two_run_page.read_text()
