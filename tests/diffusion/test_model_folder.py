"""Model folders: what `selfsr export` writes for networks on a pretrained base, for us and for diffusers."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.nets.diffusion.latent_diffusion import LatentDiffusionSpec
from selfsr.nets.diffusion.lora import LoraSpec
from selfsr.nets.diffusion.one_step import OneStep, OneStepSpec
from selfsr.nets.diffusion.prompt import Prompt
from selfsr.nets.weights import load_model, save_weights
from selfsr.nets.weights.find import find_model
from selfsr.nets.weights.load import load_into
from tiny_bases import FEATURES


def call(*arguments: Any) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def build(base: Path, scale: int = 2, **options: Any) -> OneStep:
    """Return a network with random adapters."""
    torch.manual_seed(3)
    net = OneStepSpec(base=base, **{"lora": {"rank": 2}, **options}).build(scale)
    assert isinstance(net, OneStep)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    return net.eval()


@pytest.fixture(scope="module")
def net(base: Path) -> OneStep:
    return build(base, encoder_lora={"rank": 1}, trained=("conv_in",), prompt="sky", negative_prompt="")


@pytest.fixture(scope="module")
def folder(net: OneStep, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with its base next to it."""
    root = tmp_path_factory.mktemp("exported")
    metadata = {"recipe": "name: my\ndata: {hr: /home/me/photos}\n", "step": "7"}
    save_weights(root / "net.safetensors", net, metadata)
    printed = call("export", root / "net.safetensors", "-o", root / "model", "--kohya", "--author", "Jane")
    assert "lora/kohya_lora_weights.safetensors lacks the adapters of the encoder" in printed
    (root / "net.safetensors").unlink()
    shutil.copytree(base, root / base.name, ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    return root / "model"


def test_folder_opens_bit_equal(folder: Path, net: OneStep) -> None:
    model = load_model(find_model(str(folder)))
    assert (model.scale, model.channels, model.is_diffusion) == (2, 3, True)
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.net(lr), net(lr))
    assert model.net.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, model.net.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_statement_has_no_folders_of_the_machine(folder: Path, net: OneStep) -> None:
    text = (folder / "selfsr.json").read_text()
    statement = json.loads(text)
    files = statement.pop("files").split(", ")
    assert "/" not in json.dumps(statement).replace("\\n", "")
    assert statement["network"]["base"] == "tiny_sd"
    assert statement["network"]["base_sha256"] == bytes(net.base_sha256.tolist()).hex()
    assert (statement["scale"], statement["step"], statement["author"]) == ("2", "7", "Jane")
    assert "hr: photos" in statement["recipe"]
    assert statement["base_kind"] == "UNet2DConditionModel"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")} == {
        "lora/pytorch_lora_weights.safetensors",
        "lora/encoder_lora_weights.safetensors",
        "lora/kohya_lora_weights.safetensors",
        "prompt.safetensors",
        "trained.safetensors",
    }
    assert {*files, "lora/kohya_lora_weights.safetensors"} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")
    }


def test_start_from_takes_a_folder(folder: Path, net: OneStep) -> None:
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    load_into(other, folder)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_diffusers_loads_equal_adapters(folder: Path, base: Path, net: OneStep) -> None:
    import diffusers

    unet: Any = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    unet.load_lora_adapter(folder / "lora", prefix="unet", weight_name="pytorch_lora_weights.safetensors")
    theirs = {name: tensor for name, tensor in unet.state_dict().items() if ".lora_" in name}
    ours = {name.removeprefix("unet."): tensor for name, tensor in net.state_dict().items() if ".lora_" in name}
    assert theirs
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name.replace("default_0", "default")])
    assert unet.conv_in.scaling == {"default_0": 1.0}
    vae: Any = diffusers.AutoencoderKL.from_pretrained(base / "vae")
    vae.load_lora_adapter(folder / "lora", prefix=None, weight_name="encoder_lora_weights.safetensors")
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        latents = (vae.encode(2 * image - 1).latent_dist.mode()) * 0.5
        torch.testing.assert_close(net.space.encode_with(net.autoencoder, image), latents)


def make_pipeline(base: Path) -> Any:
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    return diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(base / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(base / "unet"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(base / "scheduler", steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_stock_pipeline_takes_both_layouts(folder: Path, base: Path, net: OneStep) -> None:
    ours = {name: tensor for name, tensor in net.state_dict().items() if ".lora_" in name and name.startswith("unet.")}
    for file in ("pytorch_lora_weights", "kohya_lora_weights"):
        pipeline = make_pipeline(base)
        pipeline.load_lora_weights(folder / "lora", weight_name=f"{file}.safetensors", adapter_name="default")
        theirs = {f"unet.{name}": t for name, t in pipeline.unet.state_dict().items() if ".lora_" in name}
        assert theirs.keys() == ours.keys(), file
        assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
        assert pipeline.unet.conv_in.scaling == {"default": 1.0}


def test_kohya_file_has_alpha_and_a_warning(folder: Path) -> None:
    with safe_open(folder / "lora" / "kohya_lora_weights.safetensors", "pt") as file:
        names = set(file.keys())
        assert "not what they were trained for" in file.metadata()["note"]
        assert file.get_tensor("lora_unet_conv_in.alpha") == 2
    assert all(re.fullmatch(r"lora_unet_\w+\.(lora_down\.weight|lora_up\.weight|alpha)", name) for name in names)


@pytest.mark.slow
def test_merged_folder_needs_no_adapters(base: Path, net: OneStep, tmp_path: Path) -> None:
    import diffusers

    complete = tmp_path / "tiny_sd"
    shutil.copytree(base, complete)
    make_pipeline(base).save_pretrained(complete)
    save_weights(tmp_path / "net.safetensors", net, {})
    printed = call("export", tmp_path / "net.safetensors", "-o", tmp_path / "out", "--base", complete, "--merge")
    levels = float(re.search(r"merged: (\S+) gray levels at most", printed)[1])  # pyright: ignore
    assert levels < 0.01
    merged = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out" / "merged", safety_checker=None)
    latents = torch.randn(1, 4, 8, 8)
    inputs = (latents, 999, net.prompt[None])
    exact = build(base, encoder_lora={"rank": 1}, trained=("conv_in",), base_precision="float32", checkpointing=False)
    exact.load_state_dict(net.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(merged.unet(*inputs).sample, exact.unet(*inputs).sample, atol=2e-5, rtol=1e-5)
        plain = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
        assert (merged.unet(*inputs).sample - plain(*inputs).sample).abs().max() > 0.01  # pyright: ignore


def test_transformer_has_its_own_prefix(flow_base: Path, tmp_path: Path) -> None:
    import diffusers

    Prompt(torch.randn(5, FEATURES), pooled=torch.randn(12)).save(tmp_path / "prompt.safetensors")
    net = build(flow_base, prompt_file=tmp_path / "prompt.safetensors")
    save_weights(tmp_path / "net.safetensors", net, {})
    call("export", tmp_path / "net.safetensors", "-o", tmp_path / "out", "--kohya")
    assert not (tmp_path / "out" / "trained.safetensors").exists()  # the table of positions is the base's
    assert copy.deepcopy(net).unet.pos_embed.pos_embed is net.unet.pos_embed.pos_embed
    transformer: Any = diffusers.SD3Transformer2DModel.from_pretrained(flow_base / "transformer")
    transformer.load_lora_adapter(tmp_path / "out" / "lora", weight_name="pytorch_lora_weights.safetensors")
    theirs = {name: tensor for name, tensor in transformer.state_dict().items() if ".lora_" in name}
    ours = {name.removeprefix("unet."): tensor for name, tensor in net.state_dict().items() if ".lora_" in name}
    assert len(theirs) == len(ours) > 0
    assert all(torch.equal(tensor, ours[name.replace("default_0", "default")]) for name, tensor in theirs.items())
    kohya = safetensors.torch.load_file(tmp_path / "out" / "lora" / "kohya_lora_weights.safetensors")
    assert all(name.startswith("lora_transformer_") for name in kohya)


def test_rank_4_of_stable_diffusion_2_is_below_20_mb() -> None:
    import diffusers

    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            in_channels=4,
            out_channels=4,
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),  # pyright: ignore
            use_linear_projection=True,
        )
    assert round(sum(parameter.numel() for parameter in unet.parameters()) / 1e6, 1) == 865.9
    published = ("to_q", "to_k", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in")
    published += ("proj_out", "ff.net.0.proj", "ff.net.2")
    count = LoraSpec(rank=4, targets=published).count(unet)
    assert count == pytest.approx(4.05e6, rel=0.002)
    assert 4 * LoraSpec(rank=4).count(unet) < 17e6  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "2x-a"], "export: expected no --name for a model on a pretrained base"),
        (["--onnx"], "expected no --onnx for a model on a pretrained base"),
        (["--precision", "float16"], "expected no --precision for a model on a pretrained base"),
        ([], r"expected new files in .*, got selfsr\.json, which exists; add --overwrite"),
        (["--overwrite", "--base", "nowhere"], r"network\.base: expected a model folder of diffusers, got .*nowhere"),
    ],
)
def test_unfit_options_are_refused(options: list[str], message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        call("export", folder, "-o", folder, *options)
    assert "\n" not in str(refused.value)


def test_other_models_refuse_the_options_of_folders(tmp_path: Path) -> None:
    for option in (["--kohya"], ["--merge"], ["--base", "x"]):
        with pytest.raises(InputError, match=r"expected no --.* for a model without a pretrained base"):
            call("export", "photo_x2", "-o", tmp_path, *option)
    with pytest.raises(InputError, match="expected --name for the files"):
        call("export", "photo_x2", "-o", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("selfsr.json", b"{}", r"selfsr\.json: expected JSON with network and its base_sha256"),
        ("prompt.safetensors", b"nothing", r"prompt\.safetensors: expected a \.safetensors file"),
        ("prompt.safetensors", None, "expected prompt.safetensors, as selfsr.json states, got none; export it again"),
        ("lora/pytorch_lora_weights.safetensors", None, "expected lora/pytorch.* as selfsr.json states, got none"),
    ],
)
def test_damaged_folders_are_one_sentence(file: str, content: bytes | None, message: str, folder: Path, tmp_path: Path):
    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    shutil.copytree(folder.parent / "tiny_sd", tmp_path / "tiny_sd")
    (copied / file).unlink()
    if content is not None:
        (copied / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        load_model(copied)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("condition", ["concat", "controlnet"])
def test_latent_diffusion_is_exported_without_the_forms_that_have_no_condition(
    condition: str, base: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    lora = {"lora": {"rank": 2}} if condition == "concat" else {}
    net = LatentDiffusionSpec(base=base, condition=condition, sample={"steps": 1}, **lora).build(2)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02)
    save_weights(tmp_path / "net.safetensors", net, {})
    for form in ("--kohya", "--merge"):
        with pytest.raises(InputError, match=f"expected a one-step network for {form}, got latent diffusion"):
            call("export", tmp_path / "net.safetensors", "-o", tmp_path / "model", form)
        assert not (tmp_path / "model" / "selfsr.json").exists()
    call("export", tmp_path / "net.safetensors", "-o", tmp_path / "model")
    shutil.copytree(base, tmp_path / base.name)
    state = load_model(tmp_path / "model").net.state_dict()
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert not any(b"one-step" in path.read_bytes() for path in (tmp_path / "model").rglob("*.safetensors"))
