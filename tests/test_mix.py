"""Interpolation, blending, style mixing and edits from one pair of pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from toys import toy_stylegan2

import saminv
from saminv import InputError
from saminv.editing import PairEdit, blend, interpolate, mean_image, mix_styles
from saminv.editing.panels import draw_blend, draw_codes, draw_pair


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2(torch.float64)


@pytest.fixture(scope="module")
def invert(generator):
    def call(images, spaces, **more):
        settings = {"generator": generator, "metric": "mse", "segmenter": "none", "steps": 12, "encoder": "mean"}
        return saminv.invert(images, spaces, **settings | more)

    return call


@pytest.fixture(scope="module")
def pictures(generator):
    return generator.synthesis(generator.mapping(generator.sample_z(2, seed=77))).clamp(-1, 1).float()


@pytest.fixture(scope="module")
def padded(invert, pictures):
    return invert(pictures, ["W+", "P"])


@pytest.fixture(scope="module")
def coded(invert, pictures):
    return invert(pictures, ["W+", "FS"])


def test_all_of_another_picture_is_that_picture(padded):
    a, b = padded[0], padded[1]
    assert_close(blend(a, b, ["W+", "P"]), b.image, 1e-6)
    assert_close(interpolate(a, b, ["P"], [0.0]), a.image, 1e-6)


def test_spaces_move_apart(generator, padded):
    a, b = padded[0], padded[1]
    strip = interpolate(a, b, ["P"], [0.0, 0.5, 1.0])
    assert strip.shape == (3, 3, 32, 32)
    assert torch.equal(strip[2:], blend(a, b))
    styles, padding = a.latents["W+"]["w"], b.latents["P"]
    space = saminv.spaces.make_space("P", generator, saminv.spaces.SpaceOptions())
    assert_close(strip[2:], generator.synthesis(styles, space.bind(generator, padding, None)), 1e-6)
    assert not torch.equal(blend(a, b), blend(a, b, ["W+"]))


def test_several_pictures_at_once(padded):
    turned = saminv.Solution.join([padded[1], padded[0]])
    strips = interpolate(padded, turned, ["W+"], [0.25, 0.75])
    assert strips.shape[0] == 4
    assert_close(strips[2:], interpolate(padded[1], padded[0], ["W+"], [0.25, 0.75]), 1e-6)


def test_the_mean_image_has_native_padding(generator, padded):
    mean = mean_image(padded)
    expected = generator.synthesis(generator.statistics().mean_w.expand(1, generator.num_styles, -1))
    assert_close(mean.image[:1], expected, 1e-5)
    way = interpolate(mean[0], padded[0], ["P"], [0.0, 1.0])
    assert_close(way[:1], expected, 1e-5)
    assert not torch.equal(way[1:], way[:1])


def test_feature_codes_and_styles_are_mixed(generator, coded):
    a, b = coded[0], coded[1]
    mixed = blend(a, b, ["FS"])
    space = saminv.spaces.make_space("FS", generator, saminv.spaces.SpaceOptions())
    expected = generator.synthesis(a.latents["W+"]["w"], space.bind(generator, b.latents["FS"], None))
    assert_close(mixed, expected, 1e-6)


def test_naive_mixing_takes_later_slots(generator, padded):
    a, b = padded[0], padded[1]
    assert_close(mix_styles(a, b, generator.num_styles), b.image, 1e-6)
    assert_close(mix_styles(a, b, 0), blend(b, a, ["W+"]), 1e-6)
    for slot in (-1, generator.num_styles + 1):
        with pytest.raises(InputError, match=f"from 0 to {generator.num_styles}"):
            mix_styles(a, b, slot)


# One pair of pictures.


@pytest.fixture(scope="module")
def pair(invert, pictures):
    before = invert(pictures[:1], ["W+", "P"])
    changed = pictures[:1].clone()
    changed[..., :10, :10] += 0.4
    return PairEdit(before, invert(changed.clamp(-1, 1), ["W+", "P"], encoder=before))


def test_the_region_is_where_they_differ(pair):
    assert bool(pair.region[..., :10, :10].any()) and not bool(pair.region[..., 10:, 10:].any())


def test_both_changes_together_are_the_second_picture(pair):
    latents = pair.before
    for space in ("W+", "P"):
        change = pair.change(space)
        moved = {key: tensor + change[key] for key, tensor in latents.latents[space].items()}
        latents = replace(latents, latents={**latents.latents, space: moved})
    assert_close(blend(latents, latents), pair.after.image, 1e-6)


def test_the_space_with_the_larger_effect_is_chosen(pair, padded):
    effects = pair.effects()
    assert set(effects) == {"W+", "P"} and max(effects.values()) > 0
    best = max(effects, key=effects.get)
    assert pair.choose() == best
    assert torch.equal(pair.apply(padded), pair.apply(padded, best))
    assert_close(pair.apply(padded, best, 0.0), padded.image, 1e-6)


def test_an_edit_reaches_other_pictures(pair, padded):
    for space in ("W+", "P"):
        assert (pair.apply(padded, space) - padded.image).abs().amax(dim=(1, 2, 3)).min() > 1e-3


# What does not go together.


def test_other_spaces_and_generators_are_refused(padded, coded):
    with pytest.raises(InputError, match=r"different spaces, W\+, P and W\+, FS"):
        blend(padded, coded)
    other = replace(padded, provenance={**padded.provenance, "fingerprint": "0"})
    with pytest.raises(InputError, match="different generators"):
        blend(padded, other)
    with pytest.raises(InputError, match="has no generator"):
        blend(padded, replace(padded, generator=None))
    with pytest.raises(InputError, match="2 and 1 images"):
        blend(padded, padded[0])


def test_spaces_that_cannot_move_are_refused(invert, pictures, padded):
    masked = invert(pictures, ["W+", "P", "F4"])
    with pytest.raises(InputError, match=r"F4 cannot be moved. These solutions can exchange W\+, P;"):
        interpolate(masked, masked, ["F4"], [1.0])
    for wrong, words in ((["FS"], "FS cannot"), ([], "spaces is empty"), ("P", "list of names")):
        with pytest.raises(InputError, match=words):
            interpolate(padded, padded, wrong, [1.0])
    for amounts in ([], [0.5, float("nan")]):
        with pytest.raises(InputError, match="some finite numbers"):
            interpolate(padded, padded, ["P"], amounts)


def test_pairs_that_show_nothing_are_refused(padded):
    with pytest.raises(InputError, match="the same, or nearly so"):
        PairEdit(padded[0], padded[0])
    with pytest.raises(InputError, match="one pair of pictures, not by 2"):
        PairEdit(padded, padded)


def test_sheets(invert, padded, coded):
    a, b = padded[0], padded[1]
    blends = draw_blend(a, b)
    assert blends.shape[1] == 3 and draw_blend(padded, padded).shape[2] > 1.9 * blends.shape[2]
    shallow = invert(coded.target, ["W+", "FS4"])
    one = draw_codes({"FS": (coded[0], coded[1])})
    both = draw_codes({"FS": (coded[0], coded[1]), "FS4": (shallow[0], shallow[1])})
    assert one.shape[3] == both.shape[3] and one.shape[2] < both.shape[2] < 2 * one.shape[2]
    # The first row of both sheets is the same.
    shared = one.shape[2] * 3 // 4
    assert torch.equal(one[:, :, :shared], both[:, :, :shared])
    alone, others = draw_pair(PairEdit(a, b)), draw_pair(PairEdit(a, b), padded)
    assert alone.shape[3] == others.shape[3] and others.shape[2] > 2 * alone.shape[2]
    with pytest.raises(InputError, match="FS6 cannot be moved"):
        draw_codes({"FS6": (coded[0], coded[1])})
