"""The options of degradations: presets against the published settings, defaults, and errors."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from selfsr.degrade.presets import PRESETS, Degradation, get_preset
from selfsr.errors import InputError

REAL = [name for name, kind in PRESETS.items() if kind == "real_esrgan"]
BSR = [name for name, kind in PRESETS.items() if kind == "bsrgan"]


def parse(document) -> Degradation:
    return TypeAdapter(Degradation).validate_python(document)


# --- the published settings, written down a second time ----------------------------------------------------------

SIX_KINDS = {"iso": 0.45, "aniso": 0.25, "generalized_iso": 0.12, "generalized_aniso": 0.03}
SIX_KINDS |= {"plateau_iso": 0.12, "plateau_aniso": 0.03}
TWO_KINDS = {"iso": 0.7, "aniso": 0.3}

REAL_ESRGAN = {
    "real_esrgan": {
        "usm": True,
        "clean": 0,
        "second_probability": 1,
        "final_sinc": 0.8,
        "final_sinc_px": tuple(range(7, 22, 2)),
        "first": {
            "blur": 1,
            "gaussian": 0.5,
            "resize": {"up": 0.2, "down": 0.7, "keep": 0.1},
            "resize_range": (0.15, 1.5),
            "gaussian_sigma": (1, 30),
            "poisson_scale": (0.05, 3),
            "gray": 0.4,
            "jpeg_quality": (30, 95),
            "kernel_px": tuple(range(7, 22, 2)),
            "kernels": SIX_KINDS,
            "sinc": 0.1,
            "sigma_px": (0.2, 3),
            "beta_generalized": (0.5, 4),
            "beta_plateau": (1, 2),
        },
        "second": {
            "blur": 0.8,
            "gaussian": 0.5,
            "resize": {"up": 0.3, "down": 0.4, "keep": 0.3},
            "resize_range": (0.3, 1.2),
            "gaussian_sigma": (1, 25),
            "poisson_scale": (0.05, 2.5),
            "gray": 0.4,
            "jpeg_quality": (30, 95),
            "kernel_px": tuple(range(7, 22, 2)),
            "kernels": SIX_KINDS,
            "sinc": 0.1,
            "sigma_px": (0.2, 1.5),
            "beta_generalized": (0.5, 4),
            "beta_plateau": (1, 2),
        },
    },
    "real_esrgan_ssl": {
        "usm": False,
        "clean": 0,
        "second_probability": 1,
        "final_sinc": 0.1,
        "final_sinc_px": tuple(range(3, 6, 2)),
        "first": {
            "blur": 1,
            "gaussian": 0.5,
            "resize": {"up": 0.1, "down": 0.85, "keep": 0.05},
            "resize_range": (0.9, 1.1),
            "gaussian_sigma": (1, 8),
            "poisson_scale": (0.05, 0.5),
            "gray": 0.2,
            "jpeg_quality": (85, 95),
            "kernel_px": tuple(range(3, 8, 2)),
            "kernels": TWO_KINDS,
            "sinc": 0.01,
            "sigma_px": (0.1, 0.6),
            "beta_generalized": (0.1, 2),
            "beta_plateau": (0.1, 1),
        },
        "second": {
            "blur": 0.8,
            "gaussian": 0.5,
            "resize": {"up": 0.1, "down": 0.85, "keep": 0.05},
            "resize_range": (0.9, 1.1),
            "gaussian_sigma": (0, 4),
            "poisson_scale": (0, 0.3),
            "gray": 0.2,
            "jpeg_quality": (87, 95),
            "kernel_px": tuple(range(3, 6, 2)),
            "kernels": TWO_KINDS,
            "sinc": 0.01,
            "sigma_px": (0.1, 0.4),
            "beta_generalized": (0.1, 2),
            "beta_plateau": (0.1, 1),
        },
    },
    "real_esrgan_ssl_test": {
        "usm": False,
        "clean": 0,
        "second_probability": 0.2,
        "final_sinc": 0.1,
        "final_sinc_px": tuple(range(3, 6, 2)),
        "first": {
            "blur": 1,
            "gaussian": 0.5,
            "resize": {"up": 0.1, "down": 0.85, "keep": 0.05},
            "resize_range": (0.8, 1.1),
            "gaussian_sigma": (1, 8),
            "poisson_scale": (0.05, 0.5),
            "gray": 0.2,
            "jpeg_quality": (87, 95),
            "kernel_px": tuple(range(3, 8, 2)),
            "kernels": TWO_KINDS,
            "sinc": 0.01,
            "sigma_px": (0.1, 0.4),
            "beta_generalized": (0.1, 0.7),
            "beta_plateau": (0.1, 0.7),
        },
        "second": {
            "blur": 0.8,
            "gaussian": 0.5,
            "resize": {"up": 0.1, "down": 0.85, "keep": 0.05},
            "resize_range": (0.8, 1.1),
            "gaussian_sigma": (0, 5),
            "poisson_scale": (0, 0.4),
            "gray": 0.2,
            "jpeg_quality": (90, 95),
            "kernel_px": tuple(range(3, 6, 2)),
            "kernels": TWO_KINDS,
            "sinc": 0.01,
            "sigma_px": (0.1, 0.3),
            "beta_generalized": (0.1, 0.5),
            "beta_plateau": (0.1, 0.5),
        },
    },
    "stablesr_ssl": {
        "usm": False,
        "clean": 0.01,
        "second_probability": 1,
        "final_sinc": 0.8,
        "final_sinc_px": tuple(range(3, 12, 2)),
        "first": {
            "blur": 1,
            "gaussian": 0.5,
            "resize": {"up": 0.2, "down": 0.7, "keep": 0.1},
            "resize_range": (0.3, 1.5),
            "gaussian_sigma": (1, 15),
            "poisson_scale": (0.05, 2),
            "gray": 0.4,
            "jpeg_quality": (60, 95),
            "kernel_px": tuple(range(3, 22, 2)),
            "kernels": SIX_KINDS,
            "sinc": 0.1,
            "sigma_px": (0.2, 1.5),
            "beta_generalized": (0.5, 2),
            "beta_plateau": (1, 1.5),
        },
        "second": {
            "blur": 0.5,
            "gaussian": 0.5,
            "resize": {"up": 0.3, "down": 0.4, "keep": 0.3},
            "resize_range": (0.6, 1.2),
            "gaussian_sigma": (1, 12),
            "poisson_scale": (0.05, 1),
            "gray": 0.4,
            "jpeg_quality": (60, 100),
            "kernel_px": tuple(range(3, 12, 2)),
            "kernels": SIX_KINDS,
            "sinc": 0.1,
            "sigma_px": (0.2, 1),
            "beta_generalized": (0.5, 2),
            "beta_plateau": (1, 1.5),
        },
    },
}


@pytest.mark.parametrize("name", REAL)
def test_real_esrgan_presets_are_the_published_ones(name):
    settings = get_preset(name).model_dump()
    assert (settings.pop("kind"), settings.pop("preset")) == ("real_esrgan", name)
    assert settings == REAL_ESRGAN[name]


_NOISE_KINDS = {"color": 0.4, "gray": 0.4, "correlated": 0.2}
BSRGAN = {
    "bsrgan": {
        "halve": 0.25,
        "anisotropic": 0.5,
        "variance_max": (4, 1),
        "sigma_max": (2, 0.2),
        "kernel_px": tuple(range(7, 26, 2)),
        "resize": 0.75,
        "resize_max": (0, 2),
        "resize_uniform": "divisor",
        "shifted_px": (25,),
        "shifted_sigma_min": 0.1,
        "shifted_sigma_max": (0, 0.6),
        "noise_level": (2, 25),
        "noise": _NOISE_KINDS,
        "jpeg": 0.9,
        "jpeg_quality": (30, 95),
    },
    "bsrgan_ssl": {
        "halve": 0.25,
        "anisotropic": 0.3,
        "variance_max": (0.2, 0.2),
        "sigma_max": (0.2, 0.2),
        "kernel_px": (3, 5, 7, 9),
        "resize": 0.75,
        "resize_max": (1 / 0.85, 0),
        "resize_uniform": "divisor",
        "shifted_px": (3, 5, 7, 9),
        "shifted_sigma_min": 0.1,
        "shifted_sigma_max": (0, 0.25),
        "noise_level": (1, 12),
        "noise": _NOISE_KINDS,
        "jpeg": 0.9,
        "jpeg_quality": (75, 95),
    },
    "bsrgan_ssl_test": {
        "halve": 0.25,
        "anisotropic": 0.3,
        "variance_max": (0.2, 0.2),
        "sigma_max": (0.2, 0.2),
        "kernel_px": (3, 5, 7, 9, 11),
        "resize": 0.75,
        "resize_max": (1 / 0.75, 0),
        "resize_uniform": "factor",
        "shifted_px": (3, 5, 7, 9),
        "shifted_sigma_min": 0.1,
        "shifted_sigma_max": (0, 0.25),
        "noise_level": (1, 10),
        "noise": _NOISE_KINDS,
        "jpeg": 0.9,
        "jpeg_quality": (85, 95),
    },
}


@pytest.mark.parametrize("name", BSR)
def test_bsrgan_presets_are_the_published_ones(name):
    settings = get_preset(name).model_dump()
    assert (settings.pop("kind"), settings.pop("preset")) == ("bsrgan", name)
    assert settings == BSRGAN[name]


# --- settings ----------------------------------------------------------------------------------------------------


def test_missing_keys_come_from_the_preset():
    spec = parse({"kind": "real_esrgan", "preset": "real_esrgan_ssl", "first": {"jpeg_quality": [40, 50]}})
    published = get_preset("real_esrgan_ssl")
    assert spec.first.jpeg_quality == (40, 50)
    assert spec.first.model_copy(update={"jpeg_quality": (85, 95)}) == published.first
    assert spec.second == published.second
    assert parse({"kind": "bsrgan"}) == get_preset("bsrgan")
    assert parse("bsrgan_ssl") == get_preset("bsrgan_ssl")


@pytest.mark.parametrize("name", PRESETS)
def test_degradation_specs_survive_json(name):
    spec = get_preset(name)
    assert parse(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("bsrgan_sl", "expected one of"),
        ({"kind": "bsrgan", "preset": "real_esrgan"}, "Input should be"),
        ({"kind": "bsrgan", "noize": {}}, "Extra inputs"),
        ({"kind": "bsrgan", "noise": {"gray": 0.5}}, "expected shares of at least 0 that sum to 1, got"),
        ({"kind": "bsrgan", "jpeg_quality": [90, 80]}, "expected the smaller number first, got"),
        ({"kind": "bsrgan", "jpeg_quality": [0, 80]}, "greater than or equal to 1"),
        ({"kind": "bsrgan", "kernel_px": [4]}, "expected odd and positive kernel sizes, got 4"),
        ({"kind": "real_esrgan", "first": {"resize_range": [0, 1]}}, "expected two numbers above 0, got"),
        ({"kind": "real_esrgan", "first": {"blur": 1.2}}, "less than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(document, message):
    with pytest.raises(ValidationError, match=message):
        parse(document)


def test_get_preset_of_an_unknown_name_proposes_the_nearest():
    with pytest.raises(InputError, match="did you mean 'bsrgan_ssl'"):
        get_preset("bsrgan_sll")
