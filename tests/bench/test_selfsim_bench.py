"""The benchmark of the self-similarity loss: its baseline, its limits, its files."""

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from selfsr import cli
from selfsr.bench import measure
from selfsr.bench.plot import CostPanel, draw_plot
from selfsr.bench.unfold import unfold_loss
from selfsr.bench.workload import Workload, make_sweeps
from selfsr.errors import InputError
from selfsr.selfsim import reference
from selfsr.selfsim.tolerances import TOLERANCES

pytest.importorskip("skimage", reason="the photo to measure on comes with scikit-image")
SMALL = Workload(size_px=32, stride=3, search_px=9, window_px=5)
CPU = torch.device("cpu")


@pytest.mark.parametrize("normalize", [True, False])
def test_unfold_baseline_equals_the_definition(normalize):
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 3, 3, 9, 8, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 1, 9, 8, generator=generator) < 0.2
    mask[1] = False
    options = {"search_px": 7, "window_px": 3, "sigma": 0.05, "normalize": normalize}
    weights = {"l1_weight": 2.0, "kl_weight": 3.0}
    results = []
    for loss in (lambda leaf: unfold_loss(leaf, hr, mask, **options, **weights),
                 lambda leaf: sum(reference.loss_parts(leaf, hr, mask, **options, **weights))):  # fmt: skip
        leaf = sr.clone().requires_grad_()
        value = loss(leaf)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-15)


def test_measure_workload_measures_every_backend_and_the_baseline():
    names = measure.list_implementations(CPU)
    assert names[-1] == "unfold"
    assert "eager" in names
    results = measure.measure_workload(SMALL, names, CPU, seconds=0, with_memory=False)
    assert [result.implementation for result in results] == names
    for result in results:
        assert result.skipped is None
        assert result.ms > 0
        assert 0 <= max(result.l1_error, result.kl_error, result.gradient_error) < 1e-4
    assert results[-1].speedup == 1


@pytest.mark.parametrize("factor", [1.001, math.nan])
def test_backend_with_a_wrong_gradient_is_not_timed(factor, monkeypatch):
    from selfsr.selfsim import eager

    backward = eager.window_distances_backward

    def wrong(padded, *arguments):
        return backward(padded, *arguments) * (factor if padded.dtype == torch.float32 else 1)

    monkeypatch.setattr(eager, "window_distances_backward", wrong)
    (result,) = measure.measure_workload(SMALL, ["eager"], CPU, seconds=0, with_memory=False)
    assert result.ms is None
    assert result.skipped.startswith("gradient is wrong by ")


TIES = Workload(size_px=64, mask="random", density=0.5, search_px=9, window_px=5)


@pytest.mark.parametrize("name", ["cpu", "eager", "unfold"])
def test_rounding_changes_signs_only_at_near_ties(name):
    """With near-ties, float32 gradients of all formulations exceed the limit; without them, none does."""
    if name not in measure.list_implementations(CPU):
        pytest.skip("numba is not installed")
    sr, hr, mask = TIES.tensors(CPU)
    oracle = measure.Float64Oracle(TIES, sr, hr, mask)
    limit = TOLERANCES[torch.float32].gradient
    truth = measure.compute_gradient("eager", TIES, sr.double(), hr.double(), mask)
    assert measure.relative_error(measure.compute_gradient(name, TIES, sr, hr, mask), truth) > limit
    assert oracle.measure_errors(name)[2] < limit / 4
    assert 0.95 * int(mask.sum()) < int(oracle.compared.sum()) < int(mask.sum())
    assert not (oracle.compared & ~mask).any()


def test_wrong_sign_outside_of_near_ties_is_found(monkeypatch):
    def wrong_sign(difference):
        if difference.dtype == torch.float64:
            return difference.copy_(difference.sign())
        return difference.copy_(torch.where(difference.abs() < 1e-5, 0, difference.sign()))

    monkeypatch.setattr(torch.Tensor, "sign_", wrong_sign)
    (result,) = measure.measure_workload(TIES, ["eager"], CPU, seconds=0, with_memory=False)
    assert result.ms is None
    assert result.skipped.startswith("gradient is wrong by ")


def test_workload_of_mostly_near_ties_is_not_compared(monkeypatch):
    monkeypatch.setattr(measure, "NEAR_TIE", 0.5)
    (result,) = measure.measure_workload(SMALL, ["eager"], CPU, seconds=0, with_memory=False)
    assert result.ms is None
    assert "have near-ties, too many for a comparison; not timed" in result.skipped


def test_baseline_above_the_pixel_or_memory_limit_is_skipped(monkeypatch):
    (result,) = measure.measure_workload(SMALL, ["unfold"], CPU, seconds=0, with_memory=False, baseline_pixels=3)
    assert result.skipped == "skipped above 3 pixels"
    monkeypatch.setattr(measure, "measure_free_bytes", lambda device: 2**20)
    (result,) = measure.measure_workload(SMALL, ["unfold"], CPU, seconds=0, with_memory=False)
    assert result.skipped.endswith("GiB, 0.0 are free")


def test_peak_bytes_measures_in_a_separate_process():
    small = measure.peak_bytes("eager", SMALL, CPU)
    large = measure.peak_bytes("unfold", replace(SMALL, size_px=128, stride=1), CPU)
    assert small < 40 * 2**20
    assert large > 4 * small


def test_workload_tensors_have_the_requested_sizes_and_masks():
    sr, hr, mask = Workload(size_px=48, batch=3, stride=3).tensors(CPU)
    assert sr.shape == hr.shape == (3, 3, 48, 48)
    assert not torch.equal(hr[0], hr[1])
    assert 0 < (sr - hr).abs().mean() < 0.1
    assert mask.any((1, 2, 3)).all()
    _, _, mask = Workload(mask="random", density=0.1).tensors(CPU)
    assert mask.double().mean().item() == pytest.approx(0.1, abs=0.01)
    with pytest.raises(InputError, match=r"^bench: the photo must be at least 600 px high and wide, got 512 x 512"):
        Workload(size_px=600).tensors(CPU)
    assert {axis: len(steps) for axis, steps in make_sweeps().items()} == {
        "pixels": 7, "mask density": 7, "batch": 4, "search size": 6,
    }  # fmt: skip


def test_plot_contains_every_point():
    lines = {"eager": [(10.0, 3.0), (100.0, 20.0)], "unfold": [(10.0, 900.0)], "cpu": []}
    root = ElementTree.fromstring(draw_plot([CostPanel("Cost against <pixels>", "pixels", lines)], "a machine"))
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f".//{space}circle")
    assert len(circles) == 3
    for circle in circles:
        assert 0 < float(circle.get("cx")) < 420
        assert 0 < float(circle.get("cy")) < 300
    texts = {text.text for text in root.iter(f"{space}text")}
    assert {"Cost against <pixels>", "eager", "unfold", "a machine", "1", "1000"} <= texts
    empty = ElementTree.fromstring(draw_plot([CostPanel("Cost against batch", "images", {"unfold": []})], ""))
    assert any("nothing was measured" in (text.text or "") for text in empty.iter(f"{space}text"))


def test_command_writes_json_and_plot(tmp_path, monkeypatch):
    from selfsr.bench import run

    monkeypatch.setattr(run, "make_sweeps", lambda: {"batch": [SMALL, replace(SMALL, batch=2)]})
    out, plot = tmp_path / "results.json", tmp_path / "cost.svg"
    arguments = ["bench", "--size", "32", "--stride", "3", "--backend", "eager", "--no-baseline", "--no-memory",
                 "--seconds", "0", "--sweep", "--json", str(out), "--plot", str(plot)]  # fmt: skip
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert "eager" in done.output
    record = json.loads(out.read_text())
    assert record["machine"]["torch"] == torch.__version__
    assert [(row["axis"], row["workload"]["batch"]) for row in record["results"]] == [
        ("", 1),
        ("batch", 1),
        ("batch", 2),
    ]
    assert all(row["ms"] > 0 and row["gradient_error"] < 1e-5 for row in record["results"])
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--plot", "x.svg"], "bench: --plot needs the results of a sweep; add --sweep."),
        (["--backend", "gpu"], "bench: --backend must be one of "),
        (["--image", "nowhere.png"], "nowhere.png"),
    ],
)
def test_wrong_options_raise(arguments, sentence):
    done = CliRunner().invoke(cli.app, ["bench", *arguments])
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)


def test_interrupted_run_prints_and_keeps_its_results(tmp_path, monkeypatch, capsys):
    from selfsr.bench import run

    done = []

    def interrupted(workload, *arguments, **options):
        if done:
            raise KeyboardInterrupt
        done.append(workload)
        return measure.measure_workload(workload, *arguments, **options)

    monkeypatch.setattr(run, "measure_workload", interrupted)
    out = tmp_path / "new" / "results.json"
    with pytest.raises(KeyboardInterrupt):
        run.run_bench(
            [SMALL, SMALL], sweep=False, names=["eager"], device=CPU, seconds=0, with_memory=False, out=out, plot=None
        )
    (result,) = json.loads(out.read_text())["results"]
    assert result["implementation"] == "eager"
    assert result["ms"] > 0
    assert f"{result['ms']:.1f}" in capsys.readouterr().out
