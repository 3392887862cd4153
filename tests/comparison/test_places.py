"""Where outputs differ and where each is worst, and which part of a large image the page shows."""

import math

import numpy as np
import pytest

from selfsr.comparison.places import PLACE_PX, choose_region, find_places


def gray(height=200, width=260, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_places_are_where_one_output_was_changed():
    hr, good, bad = gray(), gray(), gray()
    bad[20:84, 150:214] = 120
    places = find_places([{"good": good, "bad": bad}], [hr], count=1)
    assert [(place.worst, place.left, place.top, place.side) for place in places] == [
        (None, 150, 20, PLACE_PX),
        ("bad", 150, 20, PLACE_PX),
    ]
    # 20 gray levels are 20 * 219 / 255 of luma in studio range.
    assert places[1].psnr["bad"] == pytest.approx(20 * math.log10(255 / (20 * 219 / 255)), abs=1e-9)
    assert places[1].psnr["good"] == math.inf


def test_each_model_is_worst_where_its_error_exceeds_the_best():
    hr, first, second = gray(), gray(), gray()
    first[100:164, 10:74] = 130
    second[100:164, 10:74] = 131  # both are bad here, the second a little more
    second[0:64, 180:244] = 110
    places = {place.worst: place for place in find_places([{"a": first, "b": second}], [hr], 1) if place.worst}
    assert (places["b"].left, places["b"].top) == (180, 0)
    assert "a" not in places


def test_places_of_several_images_do_not_overlap_and_equal_outputs_have_none():
    rng = np.random.default_rng(0)
    images = [{name: rng.integers(0, 255, (150, 150, 3), np.uint8) for name in "ab"} for _ in range(2)]
    places = find_places(images, [None, None], 4)
    assert len(places) == 4
    assert all(place.worst is None and not place.psnr for place in places)
    for i, one in enumerate(places):
        for other in places[i + 1 :]:
            apart = max(abs(one.left - other.left), abs(one.top - other.top)) >= 0.75 * PLACE_PX
            assert one.image != other.image or apart
    assert find_places([{"a": gray(), "b": gray()}], [None], 4) == []


def test_region_of_a_large_image_contains_the_difference_and_fits_the_scale():
    one, other = gray(400, 300), gray(400, 300)
    other[310:340, 250:290] = 0
    top, left, height, width = choose_region([one, other], 128, 4)
    assert (height, width) == (128, 128)
    assert top % 4 == left % 4 == 0
    assert top <= 310
    assert top + height >= 340
    assert left <= 250
    assert left + width >= 290
    assert choose_region([one, other], 512, 4) == (0, 0, 400, 300)
