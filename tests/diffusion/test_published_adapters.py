"""Adapters that HYPIR and OSEDiff saved: files of their layouts on the tiny base, made with peft."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.models.adapter_spec import make_one_step_spec
from selfsr.nets.diffusion.adapters import find_adapters
from selfsr.nets.diffusion.one_step import OneStep, OneStepSpec
from selfsr.nets.weights import load_model
from selfsr.nets.weights.load import load_into
from selfsr.nets.weights.read import read_weights

# Layers by the patterns of the two programs.
LAYERS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "conv",
    "conv1",
    "conv2",
    "conv_shortcut",
    "conv_out",
    "proj_in",
    "proj_out",
)
LAYERS += ("ff.net.0.proj", "ff.net.2")


def call(*arguments: Any) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def randomize(net: Any, *parts: str) -> dict[str, Tensor]:
    """Give the parameters whose name has one of `parts` random values, and return them."""
    torch.manual_seed(4)
    with torch.no_grad():
        chosen = {name: p for name, p in net.named_parameters() if any(part in name for part in parts)}
        for parameter in chosen.values():
            parameter.normal_(std=0.1)
    return {name: parameter.detach().clone() for name, parameter in chosen.items()}


def open_parts(base: Path) -> tuple[Any, Any]:
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    return unet, diffusers.AutoencoderKL.from_pretrained(base / "vae")


@pytest.fixture(scope="module")
def hypir(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a file of HYPIR, and its U-Net."""
    from peft import LoraConfig

    unet, _ = open_parts(base)
    unet.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=list(LAYERS)))
    path = tmp_path_factory.mktemp("hypir") / "hypir.pth"
    torch.save(randomize(unet, "lora"), path)
    return path, unet


@pytest.fixture(scope="module")
def osediff(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """Return a file of OSEDiff, and its U-Net and autoencoder."""
    from peft import LoraConfig

    unet, vae = open_parts(base)
    modules: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for name, layer in unet.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and name.split(".")[-1] not in ("linear_1", "linear_2"):
            place = "encoder" if "down" in name or name == "conv_in" else "decoder" if "up_blocks" in name else "others"
            if any(name == end or name.endswith(f".{end}") for end in (*LAYERS, "conv_in")):
                modules[place].append(name)
    for place, names in modules.items():
        config = LoraConfig(r=4, init_lora_weights="gaussian", target_modules=names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of several adapters, as theirs are
            unet.add_adapter(config, adapter_name=f"default_{place}")
    unet.set_adapter([f"default_{place}" for place in modules])
    names = [n for n, m in vae.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    names = [name for name in names if name.startswith(("encoder.", "quant_conv"))]
    vae.add_adapter(LoraConfig(r=4, init_lora_weights="gaussian", target_modules=names), adapter_name="default_encoder")
    content = {
        "rank_unet": 4,
        "rank_vae": 4,
        "vae_lora_encoder_modules": names,
        **{f"unet_lora_{place}_modules": names for place, names in modules.items()},
        "state_dict_unet": randomize(unet, "lora", "conv_in"),
        "state_dict_vae": randomize(vae, "lora"),
    }
    path = tmp_path_factory.mktemp("osediff") / "osediff.pkl"
    torch.save(content, path)
    return path, unet, vae


def run_unet(unet: Any, net: OneStep, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return unet(latents, 999, net.prompt[None]).sample


def exported(path: Path, base: Path, folder: Path) -> OneStep:
    """Return the network of the model folder that is made of a file, in float32."""
    call("export", path, "-o", folder / "model", "--base", base)
    if not (folder / base.name).exists():
        os.symlink(base, folder / base.name)
    statement = folder / "model" / "selfsr.json"
    statement.write_text(statement.read_text().replace('"bfloat16"', '"float32"'))
    model = load_model(folder / "model")
    assert model.scale == 4
    assert isinstance(model.net, OneStep)
    return model.net


def test_hypir_becomes_a_model_folder(hypir: tuple[Path, Any], base: Path, tmp_path: Path) -> None:
    path, unet = hypir
    net = exported(path, base, tmp_path)
    assert isinstance(net.spec, OneStepSpec)
    assert (net.spec.timestep, net.spec.lora.rank, net.spec.encoder_lora) == (200, 3, None)
    assert "conv_in" not in net.spec.lora.targets
    assert {"to_q", "downsamplers.0.conv"} < set(net.spec.lora.targets)
    latents = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(run_unet(net.unet, net, latents), run_unet(unet, net, latents))


def test_osediff_becomes_a_model_folder(osediff: tuple[Path, Any, Any], base: Path, tmp_path: Path) -> None:
    path, unet, vae = osediff
    net = exported(path, base, tmp_path)
    assert isinstance(net.spec, OneStepSpec)
    assert (net.spec.timestep, net.spec.lora.rank, net.spec.trained) == (999, 4, ("conv_in",))
    latents, image = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(run_unet(net.unet, net, latents), run_unet(unet, net, latents), rtol=1e-4, atol=1e-5)
    assert net.unet.conv_in.scaling == {"default": 1.0}  # theirs is 2
    with torch.no_grad():
        expected = vae.encode(2 * image - 1).latent_dist.mode() * 0.5
        torch.testing.assert_close(net.space.encode_with(net.autoencoder, image), expected, rtol=1e-4, atol=1e-5)


def test_training_starts_from_both(hypir: tuple, osediff: tuple, base: Path) -> None:
    exact = {"base": base, "base_precision": "float32"}
    layers = ["0.conv" if name == "conv" else name for name in LAYERS]
    net = OneStepSpec(**exact, lora={"rank": 3, "targets": layers}).build(2)
    assert "not used" not in load_into(net, hypir[0])
    latents = torch.randn(1, 4, 8, 8)
    assert isinstance(net, OneStep)
    torch.testing.assert_close(run_unet(net.unet, net, latents), run_unet(hypir[1], net, latents))
    with pytest.raises(InputError, match="of another shape"):
        load_into(OneStepSpec(**exact, lora={"rank": 2, "targets": layers}).build(2), hypir[0])
    adapters = find_adapters(read_weights(osediff[0]).tensors, {})
    assert adapters is not None
    spec = make_one_step_spec(osediff[0], adapters, base)
    other = spec.model_copy(update={"base_precision": "float32"}).build(2)
    load_into(other, osediff[0])
    assert isinstance(other, OneStep)
    torch.testing.assert_close(
        run_unet(other.unet, other, latents), run_unet(osediff[1], other, latents), rtol=1e-4, atol=1e-5
    )


def test_alpha_of_diffusers_is_applied(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    unet, _ = open_parts(base)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q"]))
    randomize(unet, "lora")
    unet.save_lora_adapter(tmp_path, weight_name="theirs.safetensors")
    net = OneStepSpec(base=base, base_precision="float32", lora={"rank": 2, "targets": ("to_q",)}).build(2)  # pyright: ignore
    load_into(net, tmp_path / "theirs.safetensors")
    latents = torch.randn(1, 4, 8, 8)
    assert isinstance(net, OneStep)
    torch.testing.assert_close(run_unet(net.unet, net, latents), run_unet(unet, net, latents))
    with pytest.raises(
        InputError, match="expected adapters of HYPIR or OSEDiff, whose layout states a one-step network"
    ):
        call("export", tmp_path / "theirs.safetensors", "-o", tmp_path / "out", "--base", base)


def test_what_is_missing_is_one_sentence(hypir: tuple[Path, Any], flow_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout of HYPIR; make a model folder of them with: selfsr export"):
        load_model(hypir[0])
    with pytest.raises(InputError, match=r"expected --base for .* in the layout of HYPIR only, got none"):
        call("export", hypir[0], "-o", tmp_path / "out")
    with pytest.raises(InputError, match=r"got one of .*, which the base lacks"):
        call("export", hypir[0], "-o", tmp_path / "out", "--base", flow_base)
    assert not (tmp_path / "out").exists()


class Harmful:
    """Runs a command when a pickle of it is opened in the usual way."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harmed",)


def test_code_in_a_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(
        {"state_dict_unet": {"a.lora_A.default_encoder.weight": torch.zeros(1)}, "rank_unet": Harmful()}, "x.pkl"
    )
    with pytest.raises(InputError, match="which loading would run"):
        call("export", "x.pkl", "-o", "out", "--base", "base")
    assert not (tmp_path / "harmed").exists()
