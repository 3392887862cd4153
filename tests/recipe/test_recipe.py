"""Recipes: errors, settings, resolved recipes, and the shipped regression recipes."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from factories import recipe_error
from selfsr.errors import InputError
from selfsr.recipe import dump_recipe, load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.recipe.reading import parse_settings
from selfsr.study.spec import Study
from selfsr.training.loop import fit


def changed(document: dict, path: str, value) -> dict:
    document = copy.deepcopy(document)
    *parents, leaf = path.split(".")
    node = document
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("stepz", 10, "my.yaml: stepz: unknown key; did you mean steps?"),
        ("network.featuers", 8, "my.yaml: network.featuers: unknown key; did you mean features?"),
        ("method.terms.pixel.wieght", 1, "my.yaml: method.terms.pixel.wieght: unknown key; did you mean weight?"),
        ("method.terms.pixel.pace.alfa", 1, "my.yaml: method.terms.pixel.pace.alfa: unknown key; did you mean alpha?"),
        ("evaluate.setz", {}, "my.yaml: evaluate.setz: unknown key; did you mean sets?"),
        ("checkpoints.keep", 3, "my.yaml: checkpoints.keep: unknown key; did you mean keep_last?"),
        ("steps", "many", "steps: expected an integer, got 'many'."),
        ("steps", 0, "my.yaml: steps: expected a number greater than 0, got 0."),
        ("crop_px", 33, "my.yaml: recipe: crop_px must be a multiple of the scale 2, got 33."),
        ("accumulate", 3, "my.yaml: recipe: accumulate must divide batch 4, got 3."),
        ("optimizers", {"d": {"kind": "adam"}}, "networks that the method trains, ['g'], got ['d']"),
        ("method.terms.similarity.window_px", 4, "must be odd and window_px at most search_px, got 9 and 4"),
        ("method.terms.similarity.search_px", 81, "crop_px must be at least 41 for method.terms.similarity (self"),
        ("method.terms.pixel.pace", {"alpha": 0}, "alpha and beta must not both be 0"),
        ("method.terms.pixel.pace", {"order": "easy"}, "expected one of hard_first, easy_first, got 'easy'."),
        ("method.terms.pixel.pace", {"clock": "steps"}, "pixel.pace.clock: expected one of epoch, run, got 'ste"),
        ("evaluate.best_by", "psnry", "my.yaml: evaluate.best_by: expected one of psnr_y, ssim_y"),
        ("evaluate.best_by", "psnry", "got 'psnry'; did you mean psnr_y?"),
        ("evaluate.best_by", {"lpip": 1}, "my.yaml: evaluate.best_by: expected one of psnr_y, ssim_y"),
        ("evaluate.best_by", {"lpip": 1}, "got 'lpip'; did you mean lpips?"),
        ("evaluate.best_by", {}, "my.yaml: evaluate.best_by: expected at least 1 entry, got 0; add one."),
        ("evaluate.best_by", {"lpips": 1, "dists": 1}, "metrics must contain lpips and dists for best_by, got []; add"),
        ("freeze", "body", "my.yaml: freeze: expected a list, such as [body], got 'body'."),
        ("data", {"hr": "photos"}, "my.yaml: data.kind: missing; add one of folder,"),
        ("data.degrade", "real_esrgn", "got 'real_esrgn'; did you mean real_esrgan?"),
        ("optimizers.g.groups", [{"mach": "*", "lr": 1}], "groups.0.mach: unknown key; did you mean match?"),
        ("start_fit", "tail", "start_fit does nothing without start_from; give both or neither"),
        ("schedule", {"kind": "multistep", "at_steps": [3, 2]}, "at_steps must increase, got [3, 2]"),
        ("schedule.warmup_steps", 7, "recipe: schedule.warmup_steps must be at most steps 6, got 7: the learning rate"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_with_its_key(tiny: dict, path: str, value, sentence: str) -> None:
    assert sentence in recipe_error(changed(tiny, path, value))


def test_a_warmup_of_the_whole_run_is_accepted(tiny: dict) -> None:
    recipe = parse_recipe(changed(tiny, "schedule.warmup_steps", 6), "my.yaml")
    assert recipe.schedule.factor(6, recipe.steps) == 1.0  # the last step has the full learning rate


def test_a_network_that_cannot_do_the_scale_is_refused(tiny: dict) -> None:
    document = {**tiny, "scale": 3, "crop_px": 33, "network": {"kind": "rrdb"}}
    assert "scale must be one of 2, 4, 8 for network rrdb, got 3" in recipe_error(document)


def test_a_mean_over_one_channel_is_refused(tiny: dict) -> None:
    document = changed(changed(tiny, "data.channels", 1), "method.terms.pixel.pace", {"ssim": "pixel"})
    assert "method.terms.pixel.pace.ssim must be channel where data.channels is 1" in recipe_error(document)


def test_a_luma_network_needs_one_channel(tiny: dict) -> None:
    message = recipe_error({**tiny, "network": {"kind": "lapsrn"}})
    assert "data.channels must be 1 for network lapsrn, got 3; the network works on luma" in message


def test_a_micro_batch_too_small_for_the_network_is_refused(tiny: dict) -> None:
    dat = {**tiny, "network": {"kind": "dat"}}
    assert "batch / accumulate must be at least 2 for network dat, got 1" in recipe_error({**dat, "accumulate": 4})


def test_an_unknown_kind_lists_the_known_ones(tiny: dict) -> None:
    message = recipe_error(changed(tiny, "network.kind", "esdr"))
    assert message.startswith("my.yaml: network.kind: expected one of ")
    assert message.endswith("got 'esdr'; did you mean edsr?")


def test_a_missing_key_is_named(tiny: dict) -> None:
    del tiny["scale"]
    assert recipe_error(tiny) == "my.yaml: scale: missing; add it, it has no default."


def test_more_problems_are_counted(tiny: dict) -> None:
    assert recipe_error(changed(changed(tiny, "steps", -1), "seed", -1)).endswith("(1 more problem after this one.)")


def test_a_missing_recipe_gives_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("name: x")
    (tmp_path / "my.yml.bak").write_text("name: x")
    expected = "recipe: expected a YAML file or the name of a shipped recipe, got"
    for name, advice in {
        str(tmp_path / "my.yml"): f"did you mean {tmp_path / 'my.yaml'}?",
        "small_edsr": "did you mean small_edsr_x2?",
        "small_edrs_x2": "did you mean small_edsr_x2?",
        str(tmp_path / "small_edsr_x2.yaml"): "did you mean small_edsr_x2?",
        str(tmp_path / "none" / "qqq.yaml"): "list the shipped recipes with: selfsr recipes list",
    }.items():
        with pytest.raises(InputError) as error:
            load_recipe(Path(name))
        assert str(error.value) == f"{expected} {name}, which does not exist; {advice}"


def test_settings_change_the_recipe(tiny: dict, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(tiny))
    recipe = load_recipe(path, ["steps=9", "method.terms.pixel.pace=null", "optimizers.g.lr=2e-4"])
    assert recipe.steps == 9
    assert recipe.method.terms["pixel"].pace is None
    assert recipe.optimizers["g"].lr == 2e-4


def test_an_unknown_layer_is_refused_with_the_nearest_one(tiny: dict) -> None:
    tiny["method"]["terms"]["seen"] = {"kind": "perceptual", "layers": {"conv54": 1.0}}
    with pytest.raises(InputError) as error:
        parse_recipe(tiny, "x")
    assert str(error.value).endswith(", conv5_4, got 'conv54'; did you mean 'conv5_4'?")
    assert "method.terms.seen.layers: VGG19: layers must be one of conv1_1, " in str(error.value)


def test_null_removes_a_named_entry(tmp_path: Path) -> None:
    shipped = shipped_recipes()["small_spsr_ssl_x4"]
    whole = load_recipe(shipped)
    names = {"method.terms": whole.method.terms, "method.discriminators": whole.method.discriminators}
    assert "perceptual" in names["method.terms"]
    assert len(names["method.discriminators"]) == 2
    leaves = ["method.terms.perceptual=null", "method.discriminators.d_gradient=null", "optimizers.d_gradient=null"]
    left = load_recipe(shipped, leaves)
    assert set(left.method.terms) == set(whole.method.terms) - {"perceptual"}
    assert (
        set(left.method.discriminators)
        == set(whole.method.discriminators) - {"d_gradient"}
        == set(left.optimizers) - {"g"}
    )
    with pytest.raises(InputError, match=r"method\.discriminators"):
        load_recipe(shipped, ["method.discriminators={d: null}"])


def test_a_setting_inside_a_value_is_refused(tiny: dict, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(tiny))
    with pytest.raises(InputError, match=r"--set steps.x=1: steps must have options to set, got the value 6; w"):
        load_recipe(path, ["steps.x=1"])
    with pytest.raises(InputError, match=r"--set: expected path=value, such as steps=1000, got 'steps'"):
        load_recipe(path, ["steps"])


@pytest.mark.parametrize(
    ("setting", "start"),
    [
        ("batch=x", "--set batch: expected an integer"),
        ("evaluate.metrics=[psnr_y]", "--set evaluate.metrics: expected metrics that are computed on request only"),
        ("network={kind: edsr, block: 3}", "--set network.block: unknown key; did you mean blocks?"),
        ("network.blocks=-1", "--set network.blocks: "),
    ],
)
def test_a_wrong_setting_is_named_as_one(tiny: dict, tmp_path: Path, setting: str, start: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(tiny))
    with pytest.raises(InputError) as error:
        load_recipe(path, ["steps=9", setting])
    assert str(error.value).startswith(start)


def test_a_wrong_option_beside_settings_is_that_of_the_file(tiny: dict, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(changed(tiny, "batch", "x")))
    with pytest.raises(InputError) as error:
        load_recipe(path, ["steps=9"])
    assert str(error.value).startswith(f"{path}: batch: ")


def test_a_wrong_entry_of_a_list_is_one_problem() -> None:
    document = {"name": "a", "base": "x", "arms": {"p": {}, "q": {}}, "seeds": [-1]}
    with pytest.raises(InputError) as error:
        parse_settings(Study, document, "s.yaml")
    assert str(error.value) == "s.yaml: seeds.0: expected a number greater than or equal to 0, got -1."


def test_an_error_of_file_and_setting_together_names_both(tiny: dict, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(changed(tiny, "evaluate.best_by", "lpips")))
    with pytest.raises(InputError) as error:
        load_recipe(path)
    sentence = str(error.value).removeprefix(f"{path}: ")
    assert sentence.startswith("evaluate: ")
    with pytest.raises(InputError) as error:
        load_recipe(path, ["steps=9", "evaluate.every_steps=1"])
    assert str(error.value) == f"{path} with --set evaluate.every_steps: {sentence}"


def test_yaml_reads_1e_4_as_a_number_and_refuses_duplicate_keys() -> None:
    assert read_yaml("a: 1e-4", "x") == {"a": 1e-4}
    with pytest.raises(InputError, match=r"x line 2: expected valid YAML, got an error: the key 'a' is a duplicate\."):
        read_yaml("a: 1\na: 2", "x")
    with pytest.raises(InputError, match=r"x line \d: expected valid YAML, got an error: "):
        read_yaml("a: [1", "x")


def test_the_resolved_recipe_reads_back_as_itself(tiny: dict) -> None:
    recipe = parse_recipe(tiny, "x")
    assert parse_recipe(read_yaml(dump_recipe(recipe), "y"), "y") == recipe


@pytest.mark.parametrize("name", ["small_ranksrgan_ssl_x4", "small_bsrgan_ssl_x4"])
def test_the_resolved_recipe_has_kind_first(name: str) -> None:
    def parts(value):
        if isinstance(value, dict):
            yield list(value)
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from parts(part)

    kinds = [
        keys for keys in parts(read_yaml(dump_recipe(load_recipe(shipped_recipes()[name])), "x")) if "kind" in keys
    ]
    assert len(kinds) > 6
    assert {keys.index("kind") for keys in kinds} == {0}


# Options that make the network of a recipe tiny; EDSR stands in for the networks that are not listed.
SMALLER = {
    "srcnn": {"features": [4, 4]},
    "vdsr": {"features": 4, "convs": 3},
    "drrn": {"features": 4, "recursions": 2},
    "lapsrn": {"features": 4, "convs": 1},
    "srresnet": {"features": 4, "blocks": 1},
    "edsr": {"kind": "edsr", "features": 4, "blocks": 1},
    "mdsr": {"features": 4, "blocks": 1},
    "srdensenet": {"growth": 2, "blocks": 1, "convs": 2, "bottleneck": 4},
    "rdn": {"features": 4, "growth": 2, "blocks": 1, "convs": 2},
    "dbpn": {"features": 8, "projected": 4, "stages": 2},
}
# The others are in test_gan_recipes.py and test_resshift_recipes.py.
REGRESSION_RECIPES = [name for name, path in shipped_recipes().items() if "kind: regression" in path.read_text()]


@pytest.mark.parametrize("name", REGRESSION_RECIPES)
def test_a_shipped_regression_recipe_takes_two_steps(name: str, tiny: dict, photos: Path, tmp_path: Path) -> None:
    path = shipped_recipes()[name]
    full = load_recipe(path)
    assert full.name == name
    document = read_yaml(path.read_text(), name)
    document.update(steps=2, batch=2, workers=0, start_from=None, start_fit="all", precision="float32")
    document["data"] = {**tiny["data"], "channels": full.data.channels}
    document["crop_px"] = [min(crop_px, 64) // scale * scale for scale, crop_px in full.crops_px.items()]
    document["evaluate"] = {"every_steps": 2, "sets": {"test": str(photos / "test")}}
    smaller = SMALLER.get(full.network.kind)
    document["network"] = {**document["network"], **smaller} if smaller else SMALLER["edsr"]
    document["schedule"].pop("warmup_steps", None)
    assert fit(parse_recipe(document, name), tmp_path / name, device="cpu")


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("small_")])
def test_the_title_of_a_small_recipe_has_its_size(name: str, taef2_folder: Path) -> None:
    head = shipped_recipes()[name].read_text().splitlines()[0]
    is_latent = "autoencoder:" in shipped_recipes()[name].read_text()
    settings = [f"network.space.autoencoder={taef2_folder}"] if is_latent else []
    recipe = load_recipe(shipped_recipes()[name], settings)
    if name == "small_edsr_x2_similarity":  # continues another recipe
        assert re.search("minutes|hours|weights|steps", head) is None
        return
    net = recipe.network.build(recipe.scales[0], recipe.data.channels)
    weights = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    assert head.endswith(f"{weights / 1000:,.0f} thousand parameters, {recipe.steps:,} steps of {recipe.batch} crops")
