"""Models by name, in every place that takes one: commands, recipes and studies."""

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from factories import texture
from run_folders import train
from selfsr import cli
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.models import ModelCard, choose_model, find_model, read_card, read_models, shipped
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import find
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import parse_recipe
from selfsr.study import plan

NAMES = ("photo_x2", "photo_x4", "photo_gan_x4")


def call(*args: object) -> SimpleNamespace:
    result = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli.app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(status=result.exit_code, out=result.stdout, err=result.stderr)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an image in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_image(Path("photo.jpg"), DecodedImage(texture(1, 20, 24)))
    return Path("photo.jpg")


def test_a_name_is_found_before_a_file_of_the_same_name(photo: Path) -> None:
    Path("photo_x2").write_text("not a model")
    assert find_model("photo_x2") == find.SHIPPED_FOLDER / "photo_x2.safetensors"
    assert find_model("./photo_x2") == Path("photo_x2")
    assert find_model(str(Path("photo_x2").absolute())) == Path("photo_x2").absolute()


def test_paths_are_returned_as_they_are(photo: Path) -> None:
    Path("word").touch()
    for path in ("word", "missing.safetensors", "folder/missing", "../x.pth"):
        assert find_model(path) == Path(path)


def test_the_folder_of_a_checkpoint_stands_for_its_state(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000500"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").touch()
    assert find_model(checkpoint) == checkpoint / "state.pt"
    assert find.is_folder_of_model(checkpoint)
    assert not find.is_folder_of_model(checkpoint.parent)


@pytest.mark.parametrize(
    ("word", "advice"), [("foto_x2", "did you mean photo_x2?"), ("zzz", "list the models with: selfsr models list")]
)
def test_an_unknown_word_is_refused(photo: Path, word: str, advice: str) -> None:
    names = ", ".join(sorted(read_models()))
    with pytest.raises(InputError) as error:
        find_model(word)
    assert str(error.value) == f"model: expected a weights file or one of {names}, got {word!r}; {advice}"


def test_the_default_is_the_psnr_model_of_the_scale() -> None:
    chosen = {scale: choose_model(scale).name for scale in (1, 2, 3, 4, 8)}
    assert chosen == {1: "photo_x2", 2: "photo_x2", 3: "photo_x4", 4: "photo_x4", 8: "photo_x4"}


def test_without_models_a_weights_file_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "SHIPPED_FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"got none; name a weights file with -m, or install selfsr again\.$"):
        choose_model(2)
    with pytest.raises(InputError, match=r"expected a weights file or the name of a shipped model, of which there are"):
        find_model("photo_x2")
    assert "This installation has no models." in call("models", "list").out


def test_upscale_needs_only_an_image(photo: Path) -> None:
    done = call("upscale", photo, "--device", "cpu")
    assert done.status == 0
    assert "Model: photo_x2; choose another with -m. List them with: selfsr models list" in done.err
    assert read_image(Path("photo_x2.png")).pixels.shape == (40, 48, 3)
    expected = load_model(find_model("photo_x2")).upscale(
        torch.from_numpy(read_image(photo).pixels.copy()).permute(2, 0, 1)[None] / 255
    )
    levels = (expected[0].permute(1, 2, 0) * 255).round().byte().numpy().astype(int)
    assert np.abs(levels - read_image(Path("photo_x2.png")).pixels).max() <= 1


def test_upscale_names_its_output_by_the_scale_and_the_format(photo: Path) -> None:
    assert call("upscale", photo, "--scale", 4, "--device", "cpu").status == 0
    assert read_image(Path("photo_x4.png")).pixels.shape == (80, 96, 3)
    done = call("upscale", photo, "--scale", 3, "--format", "keep", "--device", "cpu")
    assert "Model: photo_x4" in done.err
    assert read_image(Path("photo_x3.jpg")).pixels.shape == (60, 72, 3)
    Path("scans").mkdir()
    shutil.copy(photo, "scans/a.jpg")
    assert call("upscale", "scans", "-m", "photo_x2", "--device", "cpu").status == 0
    assert read_image(Path("scans_x2/a.png")).pixels.shape == (40, 48, 3)


def test_upscale_needs_an_output_for_several_inputs_and_keeps_files(photo: Path) -> None:
    with pytest.raises(InputError) as error:
        call("upscale", photo, photo, "--device", "cpu")
    assert str(error.value) == ("upscale: expected an output folder for 2 inputs, got none; name one with --output.")
    Path("photo_x2.png").touch()
    with pytest.raises(InputError, match=r"expected new files, got photo_x2.png, which exists"):
        call("upscale", photo, "--device", "cpu")


def test_evaluate_takes_a_name(photo: Path) -> None:
    write_image(Path("set/a.png"), DecodedImage(texture(2, 40, 48)))
    done = call("evaluate", "photo_x4", "--data", "set", "--out", "scores.json", "--device", "cpu")
    assert done.status == 0
    assert "photo_x4" in done.out
    assert '"upscaler": "photo_x4"' in Path("scores.json").read_text()


@pytest.fixture
def started(tiny: dict) -> dict:
    document = copy.deepcopy(tiny)
    document["method"]["terms"] = {"pixel": {"kind": "l1"}}
    # Steps too small to move a weight by much.
    optimizers = {"g": {"kind": "adam", "lr": 1e-9}}
    network = yaml.safe_load(read_models()["photo_x2"].recipe)["network"]
    options = {"start_from": "photo_x2", "steps": 2, "optimizers": optimizers}
    return {**document, "network": network, **options}


def test_a_run_starts_from_a_name_and_saves_the_name(started: dict, tmp_path: Path) -> None:
    run = train({**started, "ema_decay": None}, tmp_path / "run")
    assert "start_from: photo_x2\n" in (run / "recipe.yaml").read_text()
    weights = load_model(run / "weights" / "last.safetensors").net.state_dict()
    for name, tensor in load_model(find_model("photo_x2")).net.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6)


def test_a_run_refuses_an_unknown_name(started: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 'photo_x22'; did you mean photo_x2\?"):
        train({**started, "start_from": "photo_x22"}, tmp_path / "run")


def test_a_study_finds_the_model(started: dict) -> None:
    recipe = parse_recipe(started, "test")
    assert ("start_from", find_model("photo_x2")) in list(plan._list_paths(recipe))


def test_the_list_fits_into_80_columns() -> None:
    lines = call("models", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for name in NAMES:
        card = read_models()[name]
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f"{card.scores['Set5']['psnr_y']:.2f}" in line
        assert f"x{card.scale}" in line
    assert "T91" in text
    assert "Apache-2.0" in text
    assert lines[-1] == "Higher is better: PSNR-Y, SSIM-Y. Lower is better: LPIPS."


def test_show_prints_the_card_or_the_recipe() -> None:
    card = read_models()["photo_x4"]
    assert call("models", "show", "photo_x4").out == card.path.with_suffix(".md").read_text(encoding="utf-8")
    shown = call("models", "show", card.path, "--recipe").out
    assert shown == card.recipe
    assert "scale: 4\n" in shown


def test_show_refuses_a_file_without_a_card(tmp_path: Path) -> None:
    save_weights(tmp_path / "bare.safetensors", EdsrSpec(features=8, blocks=1).build(2), {"license": "MIT"})
    with pytest.raises(InputError) as error:
        call("models", "show", tmp_path / "bare.safetensors")
    message = str(error.value)
    assert message.startswith(
        f"{tmp_path}/bare.safetensors: expected a weights file with the metadata of selfsr models"
    )
    assert "without method, scores, training_data, recipe" in message
    entries = dict.fromkeys(shipped.CARD_ENTRIES, "x")
    save_weights(tmp_path / "bare.safetensors", EdsrSpec(features=8, blocks=1).build(2), entries)
    with pytest.raises(InputError, match=r"bare.safetensors: expected numbers and scores in its metadata, got others"):
        call("models", "show", tmp_path / "bare.safetensors")


def add(run: Path, target: Path, photos: Path, *options: object) -> SimpleNamespace:
    data = target.parent / "data.md"
    data.write_text("Waves\nMade by the tests, free of terms.\n")
    sets = ("--data", f"waves={photos / 'test'}")
    return call("models", "add", run, "-o", target, *sets, "--training-data", data, "--device", "cpu", *options)


def test_add_writes_a_small_file_with_the_scores_of_its_numbers(tiny: dict, tmp_path: Path, photos: Path) -> None:
    run = train(tiny, tmp_path / "run")
    target = tmp_path / "mine.safetensors"
    done = add(run, target, photos, "--license", "CC0-1.0", "--metric", "self_similarity")
    assert done.status == 0
    assert f"Wrote {target} (" in done.out

    full = load_model(run / "weights" / "last.safetensors").net.state_dict()
    model = load_model(target)
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(tensor, full[name].half().float())
    card = read_card(target)
    assert isinstance(card, ModelCard)
    assert (card.name, card.network, card.scale, card.steps, card.method) == ("mine", "edsr", 2, 6, "regression")
    assert (card.training_data, card.terms) == ("Waves", "Made by the tests, free of terms.")
    assert card.license == "CC0-1.0"
    assert card.seconds is not None
    assert card.device.startswith("cpu")
    scores = call("evaluate", target, "--data", f"waves={photos / 'test'}", "--device", "cpu").out
    assert f"{card.scores['waves']['psnr_y']:.2f}" in scores
    assert "self_similarity" in card.scores["waves"]
    text = target.with_suffix(".md").read_text()
    assert "| waves |" in text
    assert "selfsr evaluate mine --data waves --metric self_similarity" in text


def test_add_keeps_files_and_refuses_what_it_cannot_use(tiny: dict, tmp_path: Path, photos: Path) -> None:
    target = tmp_path / "mine.safetensors"
    with pytest.raises(InputError, match=r"models add: expected a run folder with weights/last.*, got .*nowhere"):
        add(tmp_path / "nowhere", target, photos)
    run = train(tiny, tmp_path / "run")
    target.touch()
    with pytest.raises(InputError, match=r"models add: expected a new file, got .*mine.safetensors, which exists"):
        add(run, target, photos)
    assert add(run, target, photos, "--overwrite").status == 0
    with pytest.raises(InputError, match=r"models add: expected a file that ends in .safetensors, got .*mine.pth"):
        add(run, tmp_path / "mine.pth", photos)
    (tmp_path / "empty.md").write_text("Waves\n")
    with pytest.raises(InputError, match=r"--training-data .*empty.md: expected the names of the training images"):
        add(run, target, photos, "--overwrite", "--training-data", tmp_path / "empty.md")


def test_add_refuses_numbers_beyond_float16(tmp_path: Path, tiny: dict, photos: Path) -> None:
    run = train(tiny, tmp_path / "run")
    path = run / "weights" / "last.safetensors"
    model = load_model(path)
    from selfsr.nets.weights.load import read_metadata

    metadata = read_metadata(path)
    next(model.net.parameters()).data.fill_(1e6)
    save_weights(path, model.net, metadata)
    with pytest.raises(InputError, match=r"weights: expected numbers within the range of float16, got larger ones in"):
        add(run, tmp_path / "mine.safetensors", photos)
    assert not (tmp_path / "mine.safetensors").exists()
