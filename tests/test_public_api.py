"""The public names and signatures as a snapshot: a removal or a rename shows here first."""

import inspect
from types import ModuleType

import pytest

import selfsr
from selfsr import losses

NAMES = {
    "InputError": "(message)",
    "RangeWarning": "(message)",
    "SelfPacedLoss": "(loss='l1', *, alpha=1.0, beta=0.0, peak=2.0, data_range=1.0, padding='zero', eps=None, "
    "reduction='mean', normalize=False, backend='auto')",
    "SelfSimilarityLoss": "(*, search_px=25, window_px=9, sigma=0.004, normalize=True, l1_weight=1.0, kl_weight=1.0, "
    "reduction='mean', backend='auto', memory_mb=None, max_pixels=None, threshold=20.0, stride=3, "
    "two_sided=False)",
    "edge_mask": "(hr, *, threshold=20.0, stride=1, two_sided=False)",
    "self_paced_weight": "(sr, hr, epoch, *, alpha=1.0, beta=0.0, peak=2.0, data_range=1.0, padding='zero', "
    "normalize=False, backend='auto')",
    "self_similarity_graph": "(image, mask, *, search_px=25, window_px=9, sigma=0.004, normalize=True, "
    "backend='auto', memory_mb=None)",
    "self_similarity_loss": "(sr, hr, mask=None, *, search_px=25, window_px=9, sigma=0.004, normalize=True, "
    "l1_weight=1.0, kl_weight=1.0, reduction='mean', backend='auto', memory_mb=None, max_pixels=None, "
    "row_counts=None)",
    "ssim_map": "(x, y, *, data_range=1.0, padding='zero', backend='auto')",
}


LOSSES = {
    "DistsLoss": "(*, weights=None)",
    "LpipsLoss": "(network='vgg', *, weights=None)",
    "PerceptualLoss": "(layers=None, *, network='vgg19', criterion='l1', feature_weight=1.0, style_weight=0.0, "
    "before_relu=True, weights=None)",
    "artifact_loss": "(sr, hr, ema_sr=None, *, window_px=7, detach_map=False)",
    "artifact_map": "(sr, hr, ema_sr=None, *, window_px=7)",
    "back_projection_loss": "(sr, lr, downscale, *, criterion='l1')",
    "best_buddy_loss": "(sr, hr, *, criterion='l1', alpha=1.0, beta=1.0, patch_px=3, scales=(1.0, 0.5, 0.25), "
    "memory_mb=256.0)",
    "charbonnier": "(sr, hr, *, eps=0.001, reduction='none')",
    "checkerboard_loss": "(sr, hr, *, period_px, window_px=None)",
    "discriminator_losses": "(real, fake, *, objective, form, mean=None)",
    "flat_mask": "(hr, *, window_px=11, threshold=0.025)",
    "edge_l1_loss": "(sr, hr, mask, *, reduction='mean')",
    "focal_frequency_loss": "(sr, hr, *, alpha=1.0)",
    "generator_loss": "(real, fake, *, objective, form, mean=None)",
    "gradient_branch_loss": "(branch, hr, *, criterion='l1')",
    "gradient_loss": "(sr, hr, *, criterion='l2')",
    "gradient_map": "(image, *, eps=1e-06)",
    "gradient_penalty": "(discriminator, real, fake)",
    "l1": "(sr, hr, *, reduction='none')",
    "l2": "(sr, hr, *, reduction='none')",
    "ms_ssim_loss": "(sr, hr, *, scale_weights=(0.0448, 0.2856, 0.3001, 0.2363, 0.1333))",
    "r1_penalty": "(logits, real)",
    "rank_loss": "(sr, ranker)",
    "ssim_loss": "(sr, hr)",
    "total_variation": "(image, *, criterion='l1')",
}


@pytest.mark.parametrize(("module", "names"), [(selfsr, NAMES), (losses, LOSSES)], ids=["selfsr", "selfsr.losses"])
def test_public_names_and_signatures_equal_the_snapshot(module: ModuleType, names: dict[str, str]) -> None:
    signatures = {}
    for name in module.__all__:
        signature = inspect.signature(getattr(module, name))
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        signatures[name] = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    assert signatures == names


@pytest.mark.parametrize("module", [selfsr, losses], ids=["selfsr", "selfsr.losses"])
def test_public_names_have_documentation_and_an_example(module: ModuleType) -> None:
    for name in module.__all__:
        text = inspect.getdoc(getattr(module, name)) or ""
        assert len(text.splitlines()) > 5, name
        assert len(text.splitlines()[0]) <= 100, name
        assert "Args:" in text, name
        assert ">>> " in text, f"{name} has no example"
