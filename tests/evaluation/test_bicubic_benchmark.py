"""Bicubic on Set5 and Set14 has the scores of the published tables."""

import pytest
import torch

from selfsr.evaluation.benchmark import evaluate_set, make_bicubic_upscaler

PUBLISHED = {
    "set5": {2: (33.68, 0.9305), 3: (30.40, 0.8690), 4: (28.43, 0.8113)},
    "set14": {2: (30.33, 0.8700), 3: (27.63, 0.7760), 4: (26.09, 0.7050)},
}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["set5", "set14"])
def test_bicubic_gives_the_published_numbers(name, scale, request):
    paths = request.getfixturevalue(name)
    assert len(paths) == {"set5": 5, "set14": 14}[name]
    mean = evaluate_set(make_bicubic_upscaler(scale), name, paths, scale=scale, device=torch.device("cpu")).mean
    psnr_db, ssim = PUBLISHED[name][scale]
    assert mean["psnr_y"] == pytest.approx(psnr_db, abs=0.02)
    assert mean["ssim_y"] == pytest.approx(ssim, abs=0.0005)
