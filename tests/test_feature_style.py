"""The feature code FS: its place, its twin, its edits, and the published Feature-Style code number by number."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, golden
from toys import toy_problem, toy_stylegan2

import saminv
from saminv import InputError
from saminv.checkpoints import stylegan2_from_rosinality
from saminv.editing import render_edit
from saminv.regions import Regions
from saminv.sites import Blend, Replace
from saminv.spaces import cut_off, make_space, resolve_spaces
from saminv.spaces._base import SpaceOptions


@pytest.fixture(scope="module")
def rosi():
    return golden("rosi_generator")


@pytest.fixture(scope="module")
def published(rosi):
    return stylegan2_from_rosinality(rosi.under("state/"), rosi["in/latent_avg"])


@pytest.fixture(scope="module")
def data():
    return golden("fse_generator")


@pytest.fixture(scope="module")
def noises(rosi):
    return [Replace(f"noise{layer}", rosi[f"in/noise_{layer}"]) for layer in range(9)]


@pytest.fixture(scope="module")
def toy():
    return toy_stylegan2()


# The published codes.


def test_the_rosinality_generator(published, rosi, noises):
    assert_close(published.mapping(rosi["in/z"])[:, 0], rosi["map/w"], 1e-5)
    styles = rosi["in/wplus"]
    assert_close(published.synthesis(styles), rosi["img/wplus_noise_buffers"], 1e-5)
    assert_close(published.synthesis(styles, noises), rosi["img/wplus_noise_list"], 1e-5)
    for layer in range(9):
        expected = rosi["feat/conv1" if layer == 0 else f"feat/convs.{layer - 1}"]
        found = published.synthesis(styles, noises, until=f"F{layer}")[f"F{layer}"]
        assert_close(found[: len(expected)], expected, 1e-5, f"F{layer}")


def test_features_are_those_that_enter_the_convolutions(published, data, noises):
    for k in range(1, 8):
        site = make_space(f"FS{k}", published, SpaceOptions()).sites(published)[0] if k >= 4 else f"F{k - 1}"
        found = published.synthesis(data["in/wplus"], noises, until=site)[site]
        assert_close(found, data[f"features/{k}"], 1e-5, f"features/{k}")


@pytest.mark.parametrize("k", [4, 5, 6])
def test_inserted_features_give_the_published_images(published, data, noises, k):
    space = make_space(f"FS{k}", published, SpaceOptions())
    value = {"feature": data["in/feature_k" if k == 5 else f"in/feature_at{k}"]}
    image = published.synthesis(data["in/wplus"], [*noises, *space.bind(published, value, None)])
    expected = data["img/insert_scale1.0" if k == 5 else f"img/insert_at{k}_scale1.0"]
    assert_close(image, expected, 1e-5)


def test_a_feature_fades_in_as_published(published, data, noises):
    site = make_space("FS5", published, SpaceOptions()).sites(published)[0]
    fade = Blend(site, data["in/feature_k"], torch.full((2, 1, 16, 16), 0.3))
    assert_close(published.synthesis(data["in/wplus"], [*noises, fade]), data["img/insert_scale0.3"], 1e-5)


def test_an_edit_moves_the_code_as_published(published, data, noises):
    """Eq. 1, with the noise that both pictures share."""
    space = make_space("FS5", published, SpaceOptions())
    value, styles = {"feature": data["in/feature_k"]}, data["in/wplus"]
    site = space.sites(published)[0]
    unedited = published.synthesis(styles, noises, until=site)
    edit = space.edit_taps(published, value, None, unedited)
    changed = [Replace("styles", styles + data["in/edit_dir"]), *noises, *edit]
    assert_close(published.synthesis(styles, changed, until=site)[site], data["edit/feature"], 1e-5)
    assert_close(published.synthesis(styles, changed), data["edit/img"], 1e-5)


# The space.


@pytest.mark.parametrize(("name", "sites"), [("FS", ("F4.block", "F4")), ("FS4", ("F3",)), ("FS6", ("F5",))])
def test_its_place(toy, name, sites):
    assert make_space(name, toy, SpaceOptions()).sites(toy) == sites


@pytest.mark.parametrize("name", ["FS3", "FS7", "FS8", "FS-1", "FS[5]"])
def test_places_it_does_not_have(toy, name):
    with pytest.raises(InputError, match="FS, FS4, FS5, FS6"):
        make_space(name, toy, SpaceOptions())


@pytest.mark.parametrize("other", ["F4", "FS5"])
def test_what_sets_the_same_feature_is_refused(toy, other):
    with pytest.raises(InputError, match="both set the site 'F4"):
        resolve_spaces(["FS", other], toy)


def test_both_pictures_are_compared(toy):
    problem = toy_problem(toy, ["FS"], batch=2)
    y = problem.start()
    image, parts = problem.render(y), problem.loss(y)[1]
    assert_close(image, toy.synthesis(problem.styles), 1e-6)
    recon = problem.objective.reconstruction(image, problem.prepared)
    assert_close(parts["twin"], problem.objective.total(recon), 1e-5)
    assert float(parts["code"].abs().max()) == 0
    moved = {**y, "FS": {"feature": y["FS"]["feature"] + 1}}
    after = problem.loss(moved)[1]
    assert_close(after["twin"], parts["twin"], 1e-6)
    assert (after["l2"] != parts["l2"]).all() and (after["code"] > 0).all()


def test_all_styles_have_a_gradient(toy):
    problem = toy_problem(toy, ["W+", "FS"])
    gradients = problem.evaluate(problem.start()).gradients
    assert (gradients["W+"]["w"].abs().amax(dim=2) > 0).all()


def test_an_edit_of_strength_zero_is_the_reconstruction(toy):
    problem = toy_problem(toy, ["W+", "FS", "F6"], regions=Regions.uniform(1, (32, 32), ("W+", "F6"), "F6"))
    y = problem.start()
    y["FS"]["feature"] += torch.randn_like(y["FS"]["feature"])
    still = render_edit(toy, problem.spaces, y, problem.regions, torch.zeros(1, toy.num_styles, toy.style_dim))
    assert_close(still, problem.render(y), 1e-5)


def test_variables_that_a_code_cuts_off_are_reported():
    toy = toy_stylegan2(architecture="resnet")
    names = ["W+", "P", "F2", "FS", "F6"]
    regions = Regions.uniform(1, (32, 32), ("W+", "F2", "F6"), "F2")
    problem = toy_problem(toy, names, regions=regions)
    assert cut_off(toy, problem.spaces, problem.styles) == ["F2", "P0", "P1", "P3", "P5"]
    # The picture without the code depends on them, so they are not inert.
    gradients = problem.evaluate(problem.start()).gradients
    assert all(bool((gradients["P"][name] != 0).any()) for name in ("P0", "P5", "P7"))


def test_skip_images_still_carry_what_comes_before(toy):
    for names in (["W+", "P", "FS"], ["W+", "P"]):
        problem = toy_problem(toy, names)
        assert cut_off(toy, problem.spaces, problem.styles) == []


def test_the_warning_names_them():
    toy = toy_stylegan2(architecture="resnet")
    picture = toy.synthesis(toy.mapping(toy.sample_z(1, seed=3))).clamp(-1, 1)
    settings = {"generator": toy, "metric": "mse", "segmenter": "none", "steps": 2, "encoder": "mean"}
    with pytest.warns(UserWarning, match="P0, P1 cannot change the picture: FS replaces"):
        solution = saminv.invert(picture, ["FS", "P[0,1,7]"], **settings)
    assert set(solution.latents) == {"W+", "P[0,1,7]", "FS"}
