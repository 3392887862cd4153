"""Every public loss has a term of the same name, and every file in terms/ has the name of its file in losses/."""

import re
from pathlib import Path
from typing import get_args

import pytest

import selfsr
from selfsr import losses, terms
from selfsr.terms import AnyTerm

# Public functions of `selfsr.losses` without a term, and the reason.
NOT_A_TERM = {
    "artifact_map": "a part of artifact_loss",
    "flat_mask": "the mask of region-aware discriminators",
    "gradient_map": "the input of gradient_loss and of discriminators",
    "discriminator_losses": "a loss of discriminators, in methods/gan.py",
    "generator_loss": "added by methods/gan.py, with discriminators",
    "gradient_penalty": "a loss of discriminators, in methods/gan.py",
    "r1_penalty": "a loss of discriminators, in methods/gan.py",
}
# Terms whose loss is not in `selfsr.losses` but public in `selfsr`.
IN_SELFSR = {"self_similarity_loss"}
# Files in terms/ that contain no term, and the term of a loss outside losses/.
NOT_MIRRORED_TERMS = {"__init__", "base", "features", "loss_weights", "objective", "pace", "similarity", "union"}
# Files in losses/ that contain no loss of a generator.
NOT_MIRRORED_LOSSES = {"__init__", "adversarial", "feature_weights", "features"}

KINDS = {get_args(term.model_fields["kind"].annotation)[0] for term in get_args(AnyTerm)}


def kind_of(loss: str) -> str:
    """Return the kind of a loss's term: `ssim` for `ssim_loss`, `perceptual` for `PerceptualLoss`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", loss).lower().removesuffix("_loss")


def public_losses() -> set[str]:
    return (set(losses.__all__) - set(NOT_A_TERM)) | IN_SELFSR


def test_every_public_loss_has_a_term_and_every_term_a_public_loss() -> None:
    assert {kind_of(loss) for loss in public_losses()} == KINDS


@pytest.mark.parametrize("name", sorted(NOT_A_TERM))
def test_an_exception_is_public_and_has_no_term(name: str) -> None:
    assert name in losses.__all__
    assert kind_of(name) not in KINDS


def test_a_loss_outside_losses_is_public() -> None:
    assert set(selfsr.__all__) >= IN_SELFSR


def test_files_in_terms_and_losses_have_the_same_names() -> None:
    def modules(package) -> set[str]:
        return {path.stem for path in Path(package.__file__).parent.glob("*.py")}

    private = {name for name in modules(losses) if name.startswith("_")}
    assert modules(terms) - NOT_MIRRORED_TERMS == modules(losses) - NOT_MIRRORED_LOSSES - private
