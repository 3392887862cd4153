"""The public surface as a snapshot: taking something away or renaming it shows here first."""

import inspect

import selfsr

NAMES = {
    "SelfPacedLoss": "(loss='l1', *, alpha=1.0, beta=0.0, peak=2.0, data_range=1.0, padding='zero', eps=None, "
    "reduction='mean', backend='auto')",
    "SelfSimilarityLoss": "(*, search_px=25, window_px=9, sigma=0.004, normalize=True, l1_weight=1.0, kl_weight=1.0, "
    "reduction='mean', backend='auto', memory_mb=None, max_pixels=None, mask_threshold=20.0, mask_stride=1, "
    "two_sided=False)",
    "edge_mask": "(hr, *, threshold=20.0, stride=1, two_sided=False)",
    "self_paced_weight": "(sr, hr, epoch, *, alpha=1.0, beta=0.0, peak=2.0, data_range=1.0, padding='zero', "
    "backend='auto')",
    "self_similarity_graph": "(image, mask, *, search_px=25, window_px=9, sigma=0.004, normalize=True, "
    "backend='auto', memory_mb=None)",
    "self_similarity_loss": "(sr, hr, mask=None, *, search_px=25, window_px=9, sigma=0.004, normalize=True, "
    "l1_weight=1.0, kl_weight=1.0, reduction='mean', backend='auto', memory_mb=None, max_pixels=None)",
    "ssim_map": "(x, y, *, data_range=1.0, padding='zero', backend='auto')",
}


def test_the_public_names_and_their_options_are_these() -> None:
    found = {}
    for name in selfsr.__all__:
        signature = inspect.signature(getattr(selfsr, name))
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        found[name] = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    assert found == NAMES


def test_every_public_name_is_documented() -> None:
    for name in selfsr.__all__:
        text = inspect.getdoc(getattr(selfsr, name)) or ""
        assert len(text.splitlines()) > 5, name
        assert "Args:" in text, name
