"""The list of networks, and the sizes that are counted for it."""

from typing import get_args

import pytest

from selfsr.nets import AnyNetwork, list_networks
from selfsr.nets.meta import build_on_meta, count_parameters
from selfsr.nets.msrresnet import MsrResNetSpec
from selfsr.nets.spandrel.rcan import RcanSpec

# Title and number of trained parameters of the default network at x4, for RGB where it has that: golden values.
EXPECTED = [
    ("SRCNN", 69_251),
    ("VDSR", 668_227),
    ("DRRN", 297_216),
    ("LapSRN", 870_112),
    ("SRResNet", 1_546_752),
    ("EDSR", 1_517_571),
    ("MDSR", 3_227_203),
    ("SRDenseNet", 2_666_499),
    ("RDN", 22_271_107),
    ("D-DBPN", 2_207_043),
    ("MSRResNet", 1_517_571),
    ("SRResNet (RankSRGAN)", 1_554_499),
    ("SPSR", 24_796_230),
    ("ELAN", 8_312_448),
    ("ESRGAN (RRDB)", 16_697_987),
    ("SwinIR", 11_900_199),
    ("RCAN", 15_592_355),
    ("Compact (SRVGG)", 621_424),
    ("SPAN", 1_840_488),
    ("RealPLKSR", 7_389_680),
    ("DAT", 14_802_051),
    ("HAT", 20_772_507),
    ("ResShift", 1_756_451),
    ("one-step diffusion", None),
]


def test_every_network_is_listed_with_its_size():
    infos = list_networks()
    assert len(infos) == len(get_args(AnyNetwork))
    titles = {title for title, _ in EXPECTED}
    assert [(info.title, info.parameters) for info in infos if info.title in titles] == EXPECTED
    by_title = {info.title: info for info in infos}
    assert by_title["ESRGAN (RRDB)"].kinds == ("rrdb", "esrgan")
    assert by_title["MSRResNet"].scales == (2, 3, 4)
    assert by_title["ESRGAN (RRDB)"].scales == (2, 4, 8)
    assert (by_title["LapSRN"].scales, by_title["LapSRN"].channel_counts) == ((2, 4, 8), (1,))


def test_kinds_and_titles_of_networks_are_unique():
    kinds = [kind for info in list_networks() for kind in info.kinds]
    assert len(set(kinds)) == len(kinds)
    assert len({info.title for info in list_networks()}) == len(get_args(AnyNetwork))


@pytest.mark.parametrize("spec", [RcanSpec(features=8, groups=1, blocks=1, reduction=4), MsrResNetSpec(features=8)])
def test_build_on_meta_has_same_names_and_shapes_without_values(spec):
    meta, net = build_on_meta(spec, 2, 3), spec.build(2)
    assert {name: tensor.shape for name, tensor in meta.state_dict().items()} == {
        name: tensor.shape for name, tensor in net.state_dict().items()
    }
    assert all(parameter.is_meta for parameter in meta.parameters() if parameter.requires_grad)


def test_count_parameters_is_cached():
    before = count_parameters.cache_info().hits
    assert count_parameters(MsrResNetSpec) == count_parameters(MsrResNetSpec)
    assert count_parameters.cache_info().hits > before
