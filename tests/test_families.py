"""Laws that hold for every latent space on every family of generators, and what each family refuses."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from toys import TOYS, halves, perturbed, toy, toy_problem, usual_label

import saminv
from saminv import InputError, Regions, Solution
from saminv.editing import interpolate, mean_image, mix_styles, render_edit
from saminv.editing.mix import render_latents
from saminv.generators import FAMILIES
from saminv.metrics.pixel import MSE
from saminv.optim import Adam, BestSoFar, Objective, solve
from saminv.optim.carry import carry_over
from saminv.spaces import SPACES, AbstractStyleSpace, available_spaces, make_space, resolve_spaces
from saminv.spaces._base import SpaceOptions, latent_styles, style_base

PAIRS = [(family, name) for family in TOYS for name in available_spaces(toy(family))]
SPATIAL = [(family, name) for family, name in PAIRS if re.fullmatch(r"F\d+", name)]
QUICK = {"metric": "mse", "segmenter": "none", "device": "cpu"}
FULL = SpaceOptions()

pairs = pytest.mark.parametrize("family, name", PAIRS)
families = pytest.mark.parametrize("family", TOYS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def toys():
    return {family: toy(family) for family in TOYS}


@pytest.fixture(scope="module")
def precise():
    return {family: toy(family, torch.float64) for family in TOYS}


def options_of(generator):
    return SpaceOptions(label=usual_label(generator))


def problem_of(generator, names, batch=2, **settings):
    """A problem whose feature spaces share the picture with its style base."""
    return toy_problem(generator, names, batch=batch, **settings)


def everywhere(generator, names, batch):
    """Regions that leave the last of several feature spaces the whole picture."""
    spaces = resolve_spaces(names, generator, options_of(generator))
    order = [space.name for space in spaces if space.spatial or isinstance(space, AbstractStyleSpace)]
    return Regions.uniform(batch, generator.image_size, order, order[-1])


def test_every_family_has_a_toy_and_every_space_a_family():
    assert set(TOYS) == set(FAMILIES)
    offered = {name.rstrip("0123456789") for _, name in PAIRS}
    assert offered == set(SPACES)


@families
def test_a_family_states_its_own_spaces(toys, family):
    generator = toys[family]
    spaces = resolve_spaces(generator.default_spaces, generator, options_of(generator))
    assert [space.name for space in spaces] == list(generator.default_spaces)
    assert style_base(spaces).name == generator.style_base
    feature = generator.default_spaces[-1]
    assert [space.name for space in resolve_spaces([feature], generator)] == [generator.style_base, feature]


@families
def test_every_space_that_is_not_offered_says_why(toys, family):
    generator = toys[family]
    offered = available_spaces(generator)
    absent = [key for key in SPACES if not SPACES.get(key).names(generator)]
    assert absent, "every family lacks some space"
    for key in absent:
        name = "F0" if key == "F" else key
        with pytest.raises(InputError) as caught:
            make_space(name, generator, FULL)
        message = str(caught.value)
        reason = SPACES.get(key).absence(generator)
        assert len(reason) > 15 and f"It has no {name}, since {reason}." in message
        assert all(other in message for other in offered)
    assert not any(SPACES.get(key).absence(generator) for key in SPACES if key not in absent)


@pairs
def test_it_starts_on_the_picture_of_the_styles(toys, family, name):
    generator = toys[family]
    styles = generator.mapping(generator.sample_z(1000, seed=0)[[7, 500]], usual_label(generator))
    problem = problem_of(generator, [name], styles=styles)
    # Pictures with weights of their own are rendered one by one; an up-sampling layer of StyleGAN1 that has a ring adds
    # in another order than one without.
    tolerance = {"Z": 1e-6, "G": 1e-5}.get(name, 1e-5 if family == "stylegan1" and name[0] == "P" else 0)
    assert_close(problem.render(problem.start()), generator.synthesis(styles), tolerance)


@pairs
def test_gradients_are_those_of_the_picture(precise, family, name):
    """The slope along a direction, against the difference of two pictures."""
    generator = precise[family]
    problem = problem_of(generator, [name], regions=everywhere(generator, [name], 2), objective=Objective(MSE()))
    y = perturbed(problem)
    gradients = problem.evaluate(y).gradients[name]
    for key, tensor in y[name].items():
        assert (gradients[key].flatten(1) != 0).any(dim=1).all(), key
        source = torch.Generator().manual_seed(1)
        step = 1e-7 * torch.randn(tensor.shape, generator=source, dtype=torch.float64)
        shifted = [{**y, name: {**y[name], key: tensor + sign * step}} for sign in (-1, 1)]
        low, high = (problem.loss(latents)[0] for latents in shifted)
        slope = (gradients[key] * step).flatten(1).sum(dim=1)
        assert_close((high - low) / 2, slope, 1e-4, key)


@pairs
def test_a_row_is_its_own(precise, family, name):
    generator = precise[family]
    problem = problem_of(generator, [name], batch=3, objective=Objective(MSE()))
    y = perturbed(problem)
    together = problem.evaluate(y)
    for row in range(3):
        single = problem.select(torch.tensor([row])).evaluate(
            {space: {key: tensor[row : row + 1] for key, tensor in value.items()} for space, value in y.items()}
        )
        assert_close(single.image, together.image[row : row + 1], 1e-10)
        assert_close(single.loss, together.loss[row : row + 1], 1e-9)


@pairs
@pytest.mark.parametrize("tap_point", ["layer", "block"])
def test_an_edit_of_strength_zero_is_the_reconstruction(toys, family, name, tap_point):
    generator = toys[family]
    options = replace(options_of(generator), tap_point=tap_point)
    try:
        problem = problem_of(generator, [name], options=options)
    except InputError as error:
        assert tap_point == "block" and "Use tap_point='layer'" in str(error)
        return
    y = perturbed(problem, 0.5)
    change = torch.zeros(1, generator.num_styles, generator.style_dim)
    edited = render_edit(generator, problem.spaces, y, problem.regions, change)
    assert_close(edited, problem.render(y), 1e-6)


@pairs
def test_an_edit_acts_on_every_space(toys, family, name):
    """Whatever else a solution holds, its styles are changed in all slots, and what they render changes."""
    generator = toys[family]
    names = dict.fromkeys([generator.style_base if name not in ("Z", "W") else name, name])
    problem = problem_of(generator, list(names))
    y = perturbed(problem, 0.3)
    styles = generator.mapping(generator.sample_z(2, seed=30), usual_label(generator))
    change = (styles[1:] - styles[:1]).detach()
    edited = render_edit(generator, problem.spaces, y, problem.regions, change)
    assert (edited - problem.render(y)).abs().amax(dim=(1, 2, 3)).min() > 0.01


@pytest.mark.parametrize("family, name", SPATIAL)
def test_a_mask_lets_a_space_act_where_it_is(toys, family, name):
    generator = toys[family]
    space = make_space(name, generator, FULL)
    styles = generator.mapping(generator.sample_z(2, seed=3), usual_label(generator))
    site = space.sites(generator)[0]
    delta = torch.randn(2, *generator.site(site).shape)
    mask = torch.zeros(2, 1, *delta.shape[2:])
    assert torch.equal(
        generator.synthesis(styles, space.bind(generator, {"delta": delta}, mask)), generator.synthesis(styles)
    )
    mask[..., : delta.shape[-1] // 2] = 1.0
    before = generator.synthesis(styles, until=site)[site]
    after = generator.synthesis(styles, space.bind(generator, {"delta": delta}, mask), until=site)[site]
    changed = ((after - before) != 0).any(dim=1, keepdim=True)
    assert torch.equal(changed, mask > 0)
    assert_close((after - before)[..., : delta.shape[-1] // 2], delta[..., : delta.shape[-1] // 2], 1e-4)


@pytest.mark.parametrize("family, name", SPATIAL)
def test_an_edit_leaves_what_comes_before_a_feature(toys, family, name):
    """Segments of F<l> see the change in the slots after the layer only."""
    generator = toys[family]
    layer = generator.feature_sites.index(name)
    problem = problem_of(generator, [name], regions=everywhere(generator, [name], 2))
    y = perturbed(problem, 0.3)
    reads = _slots_before(generator, name)
    early, late = torch.zeros(2, 1, generator.num_styles, generator.style_dim)
    early[:, reads], late[:, ~reads] = 0.5, 0.5
    base = problem.render(y)
    before = render_edit(generator, problem.spaces, y, problem.regions, early)
    assert_close(before, base, 1e-6)
    if layer < len(generator.feature_sites) - 1:
        after = render_edit(generator, problem.spaces, y, problem.regions, late)
        assert (after - base).abs().max() > 0.01


def _slots_before(generator, name):
    """Style slots on which a feature depends, bool `[L]`."""
    styles = generator.mapping(generator.sample_z(1, seed=3), usual_label(generator)).detach().requires_grad_()
    found = generator.synthesis(styles, until=name)[name]
    gradient = torch.autograd.grad(found.square().sum(), styles)[0]
    return (gradient[0] != 0).any(dim=1)


@pairs
def test_a_solution_survives_its_file(toys, family, name, tmp_path):
    generator = toys[family]
    target = generator(generator.sample_z(2, seed=40), usual_label(generator)).clamp(-1, 1)
    settings = {"label": usual_label(generator), **QUICK}
    solution = saminv.invert(target, spaces=[name], generator=generator, steps=2, encoder="mean", **settings)
    again = Solution.load(solution.save(tmp_path / "solution.safetensors"), generator=generator)
    assert torch.equal(again.image, solution.image) and again.provenance == solution.provenance
    for space, value in solution.latents.items():
        assert all(torch.equal(again.latents[space][key], tensor) for key, tensor in value.items())
    assert_close(render_latents(again, again.latents), solution.image, 1e-6)
    assert_close(again.edit(torch.zeros(generator.style_dim), 1.0), solution.image, 1e-5)


@pairs
def test_a_warm_start_is_taken_over_and_checked(toys, family, name):
    generator = toys[family]
    problem = problem_of(generator, [name])
    warm = perturbed(problem)
    again = replace(problem, warm=warm, _start=None).start()
    assert all(torch.equal(again[name][key], tensor) for key, tensor in warm[name].items())
    space = make_space(name, generator, options_of(generator))
    for broken in ({}, {key: tensor[..., :-1] for key, tensor in warm[name].items()}):
        with pytest.raises(InputError, match="warm start of"):
            space.init(generator, problem.styles, {name: broken})


@pairs
def test_penalties_are_numbers_per_image_and_have_a_weight(toys, family, name):
    problem = problem_of(toys[family], [name])
    parts = problem.penalties(perturbed(problem))
    assert all(value.shape == (2,) and torch.isfinite(value).all() and (value >= 0).all() for value in parts.values())
    assert parts
    known = {**Objective().weights, "noise_prior": 0.0}
    assert set(parts) <= set(known)


@families
def test_invert_needs_no_spaces(toys, family):
    """The defaults are shared out by regions, the loss falls, and an edit of the result is possible."""
    generator = toys[family]
    target = generator(generator.sample_z(2, seed=41), usual_label(generator)).clamp(-1, 1)
    settings = {"generator": generator, "label": usual_label(generator), **QUICK}
    start, end = (saminv.invert(target, steps=steps, tau=0.0, **settings) for steps in (0, 30))
    assert end.spaces == generator.default_spaces
    assert (end.stats["loss"] < start.stats["loss"]).all()
    assert (end.stats["psnr"] > start.stats["psnr"] + 1).all()
    direction = generator.mean_styles(usual_label(generator)).to(torch.float32)
    assert (end.edit(direction, 0.5) - end.image).abs().max() > 1e-3 or not direction.any()


@families
def test_every_start_is_possible(toys, family):
    generator = toys[family]
    label = usual_label(generator)
    styles = generator.mapping(generator.sample_z(1, seed=42), label)
    target = generator.synthesis(styles).clamp(-1, 1)
    settings = {"generator": generator, "label": label, "steps": 0, **QUICK}
    for encoder in ("auto", "nearest", "mean", styles[0], styles):
        solution = saminv.invert(target, encoder=encoder, **settings)
        assert torch.isfinite(solution.image).all()
    assert_close(solution.image, generator.synthesis(styles), 1e-5)
    again = saminv.invert(target, encoder=solution, **settings)
    assert_close(again.image, solution.image, 1e-6)


@families
def test_a_solution_starts_one_in_other_spaces(toys, family):
    generator = toys[family]
    target = generator(generator.sample_z(1, seed=43), usual_label(generator)).clamp(-1, 1)
    settings = {"generator": generator, "label": usual_label(generator), **QUICK}
    first = saminv.invert(target, spaces=["Z"], steps=3, encoder="mean", **settings)
    second = saminv.invert(target, steps=0, encoder=first, **settings)
    assert_close(second.image, first.image, 1e-5)


@families
def test_segments_go_on_from_where_they_were(precise, family):
    """Regions that change leave the picture of what has moved, at the feature that it has moved to."""
    generator = precise[family]
    features = list(generator.feature_sites)[1:3]
    names = [generator.style_base, *features]
    before = halves(generator, 1, names)
    problem = toy_problem(generator, names, regions=before)
    y = perturbed(problem, 0.2)
    after = Regions.uniform(1, generator.image_size, names, features[-1])
    moved = carry_over(generator, problem.spaces, y, before, after)
    assert_close(problem.with_regions(after).render(moved), problem.render(y), 1e-9)


@families
def test_solutions_are_mixed_in_their_style_base(toys, family):
    generator = toys[family]
    label = usual_label(generator)
    settings = {"generator": generator, "label": label, "spaces": [generator.style_base], "steps": 0, **QUICK}
    starts = generator.mapping(generator.sample_z(2, seed=44), label)
    a, b = (saminv.invert(generator.synthesis(s[None]).clamp(-1, 1), encoder=s, **settings) for s in starts)
    assert_close(mix_styles(a, b, generator.num_styles), b.image, 1e-6)
    assert_close(mix_styles(a, b, 0), a.image, 1e-6)
    assert_close(interpolate(a, b, [generator.style_base], [1.0]), b.image, 1e-6)
    mean = generator.mean_styles(label).to(torch.float32)
    assert_close(mean_image(a).image, generator.synthesis(mean[None]), 1e-6)
    rough = saminv.invert(a.target, **{**settings, "spaces": ["Z"]})
    with pytest.raises(InputError, match=rf"solutions in {re.escape(generator.style_base)}, .* these are in Z"):
        mix_styles(rough, rough, 2)


@families
def test_styles_of_latents_are_what_renders_them(toys, family):
    """With all spaces that change the styles there are."""
    generator = toys[family]
    found = [name for name in available_spaces(generator) if name in ("C", "C+")]
    for names in (
        [generator.style_base],
        *([generator.style_base, name] for name in found),
        *(["Z", n] for n in found),
    ):
        problem = problem_of(generator, names)
        y = perturbed(problem, 0.3)
        styles = latent_styles(generator, problem.spaces, y)
        assert torch.equal(generator.synthesis(styles), problem.render(y))


@families
def test_a_solve_improves_each_picture(toys, family):
    problem = problem_of(toys[family], toys[family].default_spaces, objective=Objective(MSE()))
    solution = solve(problem, BestSoFar(Adam()), max_steps=20)
    assert (solution.stats["loss"] < 0.9 * problem.loss(problem.start())[0]).all()
