"""Tiny pretrained bases, made once."""

from pathlib import Path

import pytest

from tiny_bases import save_base, save_flow_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with a U-Net that predicts noise, and a text encoder."""
    return save_base(tmp_path_factory.mktemp("bases") / "tiny_sd")


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Return the same model folder with another number in one weight of the U-Net."""
    import shutil

    import safetensors.torch

    folder = tmp_path_factory.mktemp("other") / "tiny_sd"
    shutil.copytree(base, folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    tensors = safetensors.torch.load_file(weights)
    tensors["conv_in.bias"][0] += 1
    safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def flow_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with a transformer that predicts a flow."""
    return save_flow_base(tmp_path_factory.mktemp("bases") / "tiny_sd3")
