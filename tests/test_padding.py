"""Instance-aware padding: the op, its sites, the space P, and the published PadInv code number by number."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, golden
from toys import LinearGenerator, toy_stylegan2

from saminv import InputError
from saminv.checkpoints import stylegan2_from_genforce
from saminv.generators import StyleGAN2Config
from saminv.ops.instance_padding import pad_ring, ring_length, ring_of
from saminv.sites import Add, Pad, Replace
from saminv.spaces import make_space, resolve_spaces
from saminv.spaces._base import SpaceOptions

EVEN = ("P0", "P1", "P3", "P5", "P7")
UP = ("P2", "P4", "P6")


@pytest.fixture(scope="module")
def data():
    return golden("padinv_generator")


@pytest.fixture(scope="module")
def published(data):
    given = data.meta["kwargs"]
    config = StyleGAN2Config(
        resolution=given["resolution"],
        z_dim=given["z_dim"],
        w_dim=given["w_dim"],
        channel_base=given["fmaps_base"],
        channel_max=given["fmaps_max"],
        mapping_layers=given["mapping_layers"],
        mapping_width=given["mapping_fmaps"],
    )
    return stylegan2_from_genforce(data.under("state/"), config)


@pytest.fixture(scope="module")
def toy():
    return toy_stylegan2()


def maps_of(data, names):
    """The published padding maps by our names."""
    keys = {name: f"in/padding_map_{'up_' if name in UP else ''}{name.lower()}" for name in names}
    return {name: data[key] for name, key in keys.items()}


def taps_of(maps):
    """Taps of published maps: the centre of P0, and of the others the ring that each layer reads."""
    taps = []
    for name, padding in maps.items():
        layer = int(name[1:]) - 1
        side = 4 << ((layer + 1) // 2)
        if name == "P0":
            middle = padding.shape[-1] // 2
            taps.append(Replace("P0", padding[:, :, middle - 2 : middle + 2, middle - 2 : middle + 2]))
        else:
            taps.append(Pad(name, ring_of(padding, *[side + layer % 2] * 2)))
    return taps


# The published code.


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("none", ()),
        ("p0_p1_p3_p5_p7", EVEN),
        ("only_const_p0", ("P0",)),
        ("only_p1", ("P1",)),
        ("only_p3", ("P3",)),
        ("only_p5", ("P5",)),
        ("only_p7", ("P7",)),
        ("up_layers", UP),
        ("up_and_even", (*EVEN, *UP)),
    ],
)
def test_images_and_features_are_the_published_ones(published, data, case, names):
    maps = maps_of(data, names)
    before = {name: padding.clone() for name, padding in maps.items()}
    taps = taps_of(maps)
    assert_close(published.synthesis(data["in/wplus"], taps), data[f"{case}/img"], 1e-5)
    layers = data.under(f"{case}/layer")
    assert bool(layers) == (case in ("none", "p0_p1_p3_p5_p7"))
    for key, expected in layers.items():
        site = f"F{key.removesuffix('/x')}"
        found = published.synthesis(data["in/wplus"], taps, until=site)[site]
        assert_close(found[: len(expected)], expected, 1e-5, site)
    assert all(torch.equal(maps[name], before[name]) for name in names)


def test_gradients_reach_the_ring_only_and_are_the_published_ones(published, data):
    maps = {name: padding.requires_grad_() for name, padding in maps_of(data, EVEN).items()}
    styles = data["in/wplus"].requires_grad_()
    loss = 500 * published.synthesis(styles, taps_of(maps)).square().mean()
    assert_close(loss, data["grad/loss_500mean_sq"], 1e-5)
    gradients = torch.autograd.grad(loss, [styles, *maps.values()])
    assert_close(gradients[0], data["grad/wplus"], 3e-5)
    for name, gradient in zip(EVEN, gradients[1:]):
        assert_close(gradient, data[f"grad/{name.lower()}"], 3e-5, name)
        assert (gradient != 0).flatten(1).any(dim=1).all()


def test_truncation_and_padding_together(published, data):
    case = "full_z_psi0.7"
    styles = published.mapping(data["in/z"], truncation=0.7)
    assert_close(styles, data[f"{case}/wp"], 1e-5)


# The op.


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5)])
def test_a_ring_goes_around(size):
    x = torch.randn(2, 3, *size)
    ring = torch.randn(2, 3, ring_length(*size))
    padded = pad_ring(x, ring)
    assert padded.shape == (2, 3, size[0] + 2, size[1] + 2)
    assert torch.equal(padded[:, :, 1:-1, 1:-1], x)
    assert torch.equal(ring_of(padded, *size), ring)
    assert torch.equal(ring_of(F.pad(padded, (2, 2, 1, 1)), *size), ring)
    assert torch.equal(pad_ring(x, torch.zeros_like(ring)), F.pad(x, (1, 1, 1, 1)))


def test_derivatives_of_the_ring():
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    ring = torch.randn(1, 2, 14, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pad_ring, (x, ring))
    assert torch.autograd.gradgradcheck(pad_ring, (x, ring))


def test_memory_stays_channels_last():
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    assert pad_ring(x, torch.zeros(2, 4, 36)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("ring", [(2, 3, 19), (1, 3, 20), (2, 4, 20)])
def test_rings_that_do_not_fit(ring):
    with pytest.raises(InputError, match=r"must be \[2, 3, 20\]"):
        pad_ring(torch.zeros(2, 3, 4, 4), torch.zeros(ring))


@pytest.mark.parametrize("side", [5, 7, 4])
def test_maps_that_do_not_fit(side):
    with pytest.raises(InputError, match="larger by 2"):
        ring_of(torch.zeros(1, 3, side, side), 4, 4)


# The space.


def test_native_padding_is_the_start(toy):
    styles = toy.mapping(toy.sample_z(2, seed=3))
    space = make_space("P[0,1,2,3,4,5,6,7]", toy, SpaceOptions())
    value = space.init(toy, styles)
    assert list(value) == [f"P{k}" for k in range(8)]
    assert torch.equal(toy.synthesis(styles, space.bind(toy, value, None)), toy.synthesis(styles))
    assert float(space.penalty(toy, value, value)["padding"].abs().max()) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P", ("P0", "P1", "P3", "P5", "P7")),
        ("P5", ("P5",)),
        ("P4", ("P4",)),
        ("P0-3", ("P0", "P1", "P3")),
        ("P3-7", ("P3", "P5", "P7")),
        ("P[7, 0,2]", ("P0", "P2", "P7")),
    ],
)
def test_names_of_paddings(toy, name, expected):
    assert resolve_spaces(["W+", name], toy)[1].sites(toy) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("P9", "no P9"),
        ("P[0,9]", "no P9"),
        ("P[1,1]", "twice"),
        ("P[]", "names no padding"),
        ("P0-9", "its ends must be among 0, 1, 3, 5, 7"),
        ("P5-1", "is no range"),
        ("P0-4", "is no range"),
    ],
)
def test_names_of_no_padding(toy, name, words):
    with pytest.raises(InputError, match=words):
        make_space(name, toy, SpaceOptions())


def test_paddings_that_overlap_are_refused(toy):
    with pytest.raises(InputError, match="P and P5 both set the site 'P5'"):
        resolve_spaces(["P", "P5"], toy)


def test_generators_without_padding_offer_none():
    with pytest.raises(InputError, match=r"Unknown space 'P'\. This generator offers: Z, W, "):
        make_space("P", LinearGenerator(), SpaceOptions())


def test_small_generators_have_fewer_paddings():
    small = toy_stylegan2(resolution=16)
    assert make_space("P", small, SpaceOptions()).sites(small) == ("P0", "P1", "P3", "P5")


def test_what_is_measured_is_what_the_ring_surrounds(toy):
    styles = toy.mapping(toy.sample_z(32, seed=1))
    layer, feature = toy.layers[2], toy.synthesis(styles, until="F1")["F1"]
    expected = (feature * layer.affine(styles[:, 2])[:, :, None, None]).std(dim=(0, 2, 3))
    assert_close(toy.padding_deviation("P3"), expected, 1e-5)
    assert toy.padding_deviation("P2").shape == (toy.site("P2").shape[0],)
    assert_close(toy.padding_deviation("P0"), toy.const.std().expand(toy.const.shape[0]), 1e-2)


def test_taps_of_another_kind_are_refused(toy):
    styles = toy.mapping(toy.sample_z(1, seed=3))
    with pytest.raises(InputError, match="Add does not act at the padding site 'P1'"):
        toy.synthesis(styles, [Add("P1", torch.zeros(1, 12, 20))])


def test_the_ring_enters_after_the_styles(toy):
    """Twice the style of all channels leaves a layer alone, but not what its padding weighs."""
    styles = toy.mapping(toy.sample_z(1, seed=3))
    space = make_space("P1", toy, SpaceOptions())
    value = {"P1": torch.randn(1, *toy.site("P1").shape)}
    plain = toy.synthesis(styles, until="F0")["F0"]
    padded = toy.synthesis(styles, space.bind(toy, value, None), until="F0")["F0"]
    changed = (plain != padded)[0].any(dim=0)
    assert changed[0].all() and changed[:, -1].all() and not changed[1:-1, 1:-1].any()
