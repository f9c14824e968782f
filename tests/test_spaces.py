"""Laws that every latent space keeps, over all spaces that a generator offers, and how names become spaces."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from helpers import assert_close, relative_difference
from toys import LinearGenerator, halves, perturbed, toy_problem, toy_stylegan2

from saminv import InputError, Regions, Status
from saminv.editing import render_edit, sefa_directions
from saminv.generators import LatentStatistics, style_matrix
from saminv.generators._base import gaussianise
from saminv.metrics.pixel import MSE
from saminv.optim import Adam, BestSoFar, Objective, PlateauStop, solve
from saminv.sites import Add, Blend
from saminv.spaces import SPACES, AbstractStyleSpace, available_spaces, make_space, resolve_spaces
from saminv.spaces._base import SpaceOptions
from saminv.spaces.priors import deviation, feature_penalty, gaussian_prior

FAMILIES = {"skip": {}, "resnet": {"architecture": "resnet"}, "crop": {"crop": (24, 32)}}
NAMES = available_spaces(toy_stylegan2())
STYLE_SPACES = ["W", "W+", "Z"]
FEATURES = [name for name in NAMES if re.fullmatch(r"F\d+", name)]
PUBLISHED = SpaceOptions(formulation="published", tap_point="block", skip="published", whiten_features=False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def precise():
    return toy_stylegan2(torch.float64)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return toy_stylegan2(**FAMILIES[request.param])


def everywhere(generator, space, batch):
    """Regions that leave a spatial space the whole image."""
    return Regions.uniform(batch, generator.image_size, ("W+", space), space) if space in FEATURES else None


def start_styles(generator, batch=2):
    return generator.mapping(generator.sample_z(batch, seed=3))


def test_the_toy_offers_all_but_the_spaces_of_a_class_embedding(generator):
    assert NAMES == available_spaces(generator)
    assert {name.rstrip("0123456789") for name in NAMES} == set(SPACES) - {"Z+", "C", "C+"}
    assert FEATURES == [f"F{layer}" for layer in range(7)]


@pytest.mark.parametrize("name", FEATURES)
def test_zero_mask_changes_nothing_bit_for_bit(family, name):
    space = make_space(name, family, SpaceOptions())
    styles = start_styles(family)
    delta = torch.randn(2, *family.site(name).shape, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(2, 1, *delta.shape[-2:])
    unedited = {site: torch.randn(2, *family.site(site).shape) for site in space.frozen_sites(family)}
    base = family.synthesis(styles)
    assert torch.equal(family.synthesis(styles, space.bind(family, {"delta": delta}, zero)), base)
    edit = space.edit_taps(family, {"delta": delta}, zero, unedited)
    assert torch.equal(family.synthesis(styles, edit), base)
    assert not torch.equal(family.synthesis(styles, space.bind(family, {"delta": delta}, zero + 1)), base)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_number(family, name):
    problem = toy_problem(family, [name], batch=2, regions=everywhere(family, name, 2))
    for value in problem.evaluate(perturbed(problem)).gradients[name].values():
        alive = value.flatten(1) != 0
        assert alive.any(dim=1).all()
        if family.image_size == (32, 32):
            # A leaky ReLU has no dead side, so only borders that up-sampling cuts off may get nothing.
            assert alive.double().mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_value_changes_the_image(generator, name):
    problem = toy_problem(generator, [name], regions=everywhere(generator, name, 1))
    assert (problem.render(perturbed(problem)) - problem.render(problem.start())).abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_on_the_base_image(family, name):
    styles = start_styles(family)
    if name == "Z":
        # Z starts at one of its own candidates, so the base image must be one of those.
        styles = family.mapping(family.sample_z(1000, seed=0)[[7, 500]])
    problem = toy_problem(family, [name], batch=2, styles=styles)
    image = problem.render(problem.start())
    if name in ("Z", "G"):
        # Pictures with weights of their own are rendered one by one.
        assert_close(image, family.synthesis(styles), 1e-6 if name == "Z" else 1e-5)
    else:
        assert torch.equal(image, family.synthesis(styles))


def test_w_starts_at_the_mean_of_the_styles(generator):
    styles = torch.randn(2, generator.num_styles, generator.style_dim)
    assert_close(make_space("W", generator, SpaceOptions()).init(generator, styles)["w"], styles.mean(dim=1), 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_start_is_taken_over_and_detached(generator, name):
    problem = toy_problem(generator, [name], batch=2)
    warm = perturbed(problem)
    for tensor in warm[name].values():
        tensor.requires_grad_()
    again = replace(problem, warm=warm, _start=None).start()
    assert all(torch.equal(again[name][key], tensor) for key, tensor in warm[name].items())
    assert not any(tensor.requires_grad for tensor in again[name].values())
    assert all(again[name][key] is not tensor for key, tensor in warm[name].items())


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_start_of_another_shape_is_refused(generator, name):
    space = make_space(name, generator, SpaceOptions())
    value = space.init(generator, start_styles(generator, 1))
    for broken in ({}, {key: tensor[..., :-1] for key, tensor in value.items()}):
        with pytest.raises(InputError, match="warm start of"):
            space.init(generator, start_styles(generator, 1), {name: broken})


MIXES = [[name] for name in NAMES] + [["W+", "F4", "F6", "N"], ["Z", "F5"], ["W", "F0", "F6"]]


def alone(problem, row):
    """One image of a problem as a problem of its own."""
    part = slice(row, row + 1)
    target, styles, regions = problem.target[part], problem.styles[part], problem.regions.select([row])
    return replace(problem, target=target, styles=styles, regions=regions, _prepared=None, _start=None)


@pytest.mark.parametrize("names", MIXES, ids="+".join)
def test_a_batch_renders_and_is_judged_as_its_images_alone(precise, names):
    problem = toy_problem(precise, names, batch=3, objective=Objective(MSE()))
    y = perturbed(problem)
    together = problem.evaluate(y)
    for row in range(3):
        part = slice(row, row + 1)
        single = alone(problem, row).evaluate({s: {k: t[part] for k, t in v.items()} for s, v in y.items()})
        assert_close(single.image, together.image[part], 1e-10)
        for key, expected in together.parts.items():
            assert (single.parts[key] - expected[part]).abs() <= 1e-10 * expected[part].abs().clamp_min(1), key
        for space, value in together.gradients.items():
            for key, expected in value.items():
                assert_close(single.gradients[space][key], expected[part], 1e-10, f"{space}/{key}")


@pytest.mark.parametrize("names", [["W+", "F4", "F6", "N"], ["W", "F0", "F3"], ["Z", "F5"]], ids="+".join)
def test_a_batch_is_solved_as_its_images_alone(precise, names):
    """Every image ends in its own way: the clocks, the best iterates and the status are those of a run by itself."""
    problem = toy_problem(precise, names, batch=3, objective=Objective(MSE()))
    target = torch.cat([problem.target[:2], problem.render(problem.start())[2:]])
    problem = replace(problem, target=target, _prepared=None)
    solver = PlateauStop(BestSoFar(Adam()), patience=4, tolerance=0.03)
    solved = solve(problem, solver, max_steps=15)
    assert solved.statuses[0] == Status.COMPLETED and solved.statuses[2] == Status.PLATEAU
    assert solved.stats["steps"][2] < 15
    for row in range(3):
        part = slice(row, row + 1)
        solo = solve(alone(problem, row), solver, max_steps=15)
        assert solo.status[0] == solved.status[row]
        assert_close(solo.image, solved.image[part], 1e-10)
        for space, value in solo.latents.items():
            for key, tensor in value.items():
                assert (tensor - solved.latents[space][key][part]).abs().max() < 1e-10
        for key, value in solo.stats.items():
            assert (value - solved.stats[key][part]).abs() <= 1e-9 * solved.stats[key][part].abs().clamp_min(1), key


BLOCKS = ["F0", "F2", "F4"]
EDITED = [
    *[("layer", [name]) for name in NAMES],
    *[("block", [name]) for name in BLOCKS],
    ("layer", ["W+", "F1", "F2", "F4", "F5", "F6", "N"]),
    ("block", ["W", *BLOCKS, "N"]),
]


@pytest.mark.parametrize("tap_point, names", EDITED)
def test_an_edit_of_strength_zero_is_the_reconstruction(family, tap_point, names):
    problem = toy_problem(family, names, batch=2, options=SpaceOptions(tap_point=tap_point))
    y = perturbed(problem, 0.5)
    change = torch.zeros(1, family.num_styles, family.style_dim)
    edited = render_edit(family, problem.spaces, y, problem.regions, change)
    assert_close(edited, problem.render(y), 1e-6)


def test_the_masks_of_that_test_are_soft(generator):
    regions = halves(generator, 2, ("W+", "F2", "F4"))
    masks = [regions.mask(name, generator.site(name)) for name in ("F2", "F4")]
    assert all(((mask > 0.05) & (mask < 0.95)).float().mean() > 0.05 for mask in masks)


def test_the_published_edit_of_strength_zero_is_off_under_soft_masks(generator):
    problem = toy_problem(generator, ["W+", "F2", "F4"], options=replace(PUBLISHED, formulation="paper"))
    y = perturbed(problem, 0.5)
    change = torch.zeros(1, generator.num_styles, generator.style_dim)
    edited = render_edit(generator, problem.spaces, y, problem.regions, change)
    assert relative_difference(edited, problem.render(y)) > 0.01


@pytest.mark.parametrize("layer", [2, 4, 6])
def test_an_edit_moves_what_comes_after_the_layer_only(generator, layer):
    """A frozen feature ends the influence of the styles before it, an unfrozen picture shows all of them."""
    problem = toy_problem(generator, [f"F{layer}"], regions=everywhere(generator, f"F{layer}", 1))
    y = perturbed(problem, 0.3)
    early, late = torch.zeros(2, 1, generator.num_styles, generator.style_dim)
    early[:, : layer + 1], late[:, layer + 1 :] = 1.0, 1.0
    before, after = (render_edit(generator, problem.spaces, y, problem.regions, c) for c in (early, late))
    base = problem.render(y)
    assert_close(before, base, 1e-6)
    assert (after - base).abs().max() > 0.05
    free = toy_problem(generator, ["W+"])
    assert (render_edit(generator, free.spaces, free.start(), free.regions, early) - base).abs().max() > 0.05


def test_edits_add_the_delta_before_they_blend(generator):
    space = make_space("F4", generator, SpaceOptions())
    assert space.frozen_sites(generator) == ("F4", "rgb4")
    unedited = {name: torch.zeros(1, *generator.site(name).shape) for name in ("F4", "rgb4")}
    taps = space.edit_taps(generator, {"delta": unedited["F4"]}, None, unedited)
    assert [(type(tap), tap.site) for tap in taps] == [(Add, "F4"), (Blend, "F4"), (Blend, "rgb4")]
    published = make_space("F4", generator, PUBLISHED)
    assert published.frozen_sites(generator) == ("F4.block",)


def test_names_that_no_space_has(generator):
    for name in ("F7", "F04", "f4", "W++", "F", "", "Q5", "styles"):
        with pytest.raises(InputError) as caught:
            resolve_spaces([name], generator)
        assert repr(name) in str(caught.value)
        assert all(offered in str(caught.value) for offered in NAMES)


@pytest.mark.parametrize(
    "names, words",
    [
        ("W+", ["list", "['W+']"]),
        ([], ["empty", "W+"]),
        (["W", "W+"], ["W and W+", "'styles'", "keep one"]),
        (["Z", "F4", "W+"], ["Z and W+", "'styles'"]),
        (["F4", "F4"], ["F4", "twice"]),
        (["W+", "W+"], ["W+", "twice"]),
        ([4], ["string", "int"]),
        ([None], ["string", "NoneType"]),
        (4, ["list", "int"]),
        (None, ["list", "NoneType"]),
    ],
)
def test_lists_that_make_no_sense(generator, names, words):
    with pytest.raises(InputError) as caught:
        resolve_spaces(names, generator)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_two_spaces_of_one_site_are_refused(generator, monkeypatch):
    class Other(type(make_space("F4", generator, SpaceOptions()))):
        """A second space that sets F4."""

        def __init__(self, name, options):
            super().__init__("F4", options)
            self.name = name

        @classmethod
        def names(cls, generator):
            return ["OTHER"]

    monkeypatch.setitem(SPACES._entries, "OTHER", Other)
    with pytest.raises(InputError, match="F4 and OTHER both set the site 'F4'"):
        resolve_spaces(["F4", "OTHER"], generator)


def test_the_order_is_that_of_editability_and_w_plus_is_always_there(generator):
    assert [s.name for s in resolve_spaces(["F6", "N", "F1", "F4"], generator)] == ["W+", "F1", "F4", "F6", "N"]
    assert [s.name for s in resolve_spaces(("F4", "W"), generator)] == ["W", "F4"]
    assert [s.name for s in resolve_spaces(["N", "Z"], generator)] == ["Z", "N"]
    ranks = [make_space(name, generator, SpaceOptions()).rank for name in ("Z", "W", "W+", *FEATURES, "N")]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("name", NAMES)
def test_only_features_are_spatial_and_only_styles_are_a_base(generator, name):
    space = make_space(name, generator, SpaceOptions())
    assert space.name == name
    assert space.spatial == (name in FEATURES)
    assert isinstance(space, AbstractStyleSpace) == (name in STYLE_SPACES)


def test_a_generator_without_noise_offers_no_noise_space():
    assert sorted(available_spaces(LinearGenerator())) == ["F0", "F1", "F2", "W", "W+", "Z"]


@pytest.mark.parametrize("field", ["formulation", "tap_point", "skip"])
def test_options_that_are_none(field):
    with pytest.raises(InputError, match=f"{field} must be one of .*'middle'"):
        SpaceOptions(**{field: "middle"})


def test_the_last_feature_acts_before_its_torgb_only(generator):
    problem = toy_problem(generator, ["F6"], regions=everywhere(generator, "F6", 1))
    assert (problem.render(perturbed(problem)) - problem.render(problem.start())).abs().max() > 0.01
    for name in ("F6", "F5"):
        with pytest.raises(InputError) as caught:
            resolve_spaces(["W+", name], generator, SpaceOptions(tap_point="block"))
        message = str(caught.value)
        assert name in message and "tap_point='layer'" in message and "F0, F2, F4" in message
        assert "noise" not in message, "the list of all sites helps nobody"


def test_block_taps_act_after_the_torgb(generator):
    block = toy_problem(generator, ["F4"], options=SpaceOptions(tap_point="block"))
    regions = everywhere(generator, "F4", 1)
    layer = replace(toy_problem(generator, ["F4"]), regions=regions)
    block = replace(block, regions=regions)
    y = perturbed(block)
    added = [p.generator.synthesis(p.styles, p.taps(y), until="rgb4.block")["rgb4.block"] for p in (block, layer)]
    base = generator.synthesis(y["W+"]["w"], until="rgb4.block")["rgb4.block"]
    assert torch.equal(added[0], base)
    assert not torch.equal(added[1], base)


def test_penalties_are_the_formulas(precise):
    """Against loops over slots and channels, in both formulations."""
    w = precise.mapping(precise.sample_z(2000, seed=9))[:, 0]
    statistics = LatentStatistics.from_samples(w)
    styles = torch.randn(2, 5, precise.style_dim, dtype=torch.float64)
    covariance = torch.cov(gaussianise(w).t()) + 1e-8 * torch.eye(precise.style_dim)
    for formulation, centre, inverse in (
        ("paper", gaussianise(w).mean(0), torch.linalg.inv(covariance + floor_of(covariance))),
        ("published", gaussianise(w.mean(0)), torch.linalg.inv(covariance)),
    ):
        expected = torch.zeros(2, dtype=torch.float64)
        for row in range(2):
            for slot in range(5):
                d = gaussianise(styles[row, slot]) - centre
                expected[row] += d @ inverse @ d
        assert_close(gaussian_prior(styles, statistics, formulation), expected, 1e-9)
    steps = (styles[:, 1:] - styles[:, :1]).norm(dim=2)
    assert_close(deviation(styles, "paper"), steps.square().sum(1), 1e-12)
    assert_close(deviation(styles, "published"), steps.sum(1), 1e-12)


def floor_of(covariance):
    """The paper's form floors the eigenvalues at a thousandth of their mean."""
    return 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)


def test_feature_penalties_and_whitening(precise):
    delta = torch.randn(2, *precise.site("F4").shape, dtype=torch.float64)
    assert_close(feature_penalty(delta), delta.square().sum((1, 2, 3)), 1e-12)
    assert_close(feature_penalty(delta, None, "published"), delta.square().mean((1, 2, 3)), 1e-12)
    scale = precise.feature_deviation("F4")
    styles = precise.mapping(precise.sample_z(32, seed=1))
    channels = precise.synthesis(styles, until="F4")["F4"].transpose(0, 1).flatten(1)
    assert_close(scale, channels.std(dim=1), 1e-9)
    space = make_space("F4", precise, SpaceOptions())
    whitened = (delta / scale[:, None, None]).square().sum(1).mean((1, 2))
    assert_close(space.penalty(precise, {"delta": delta}, {})["feature"], whitened, 1e-12)
    assert_close(space.step_scale(precise, {"delta": delta})["delta"], scale[:, None, None], 1e-12)
    plain = make_space("F4", precise, PUBLISHED)
    assert_close(plain.penalty(precise, {"delta": delta}, {})["feature"], delta.square().mean((1, 2, 3)), 1e-12)
    assert plain.step_scale(precise, {"delta": delta}) == {}


def test_the_scale_of_features_follows_the_generator(generator):
    """Computed once in float32, it serves values of another type too."""
    space = make_space("F4", generator, SpaceOptions())
    space.penalty(generator, {"delta": torch.ones(1, *generator.site("F4").shape)}, {})
    precise = {"delta": torch.ones(1, *generator.site("F4").shape, dtype=torch.float64)}
    assert space.step_scale(generator, precise)["delta"].dtype == torch.float64
    assert space.penalty(generator, precise, {})["feature"].dtype == torch.float64


def test_whitened_styles_have_unit_covariance(precise):
    basis = make_space("W+", precise, SpaceOptions()).step_basis(precise, {"w": torch.zeros(1, dtype=torch.float64)})
    factor = basis["w"]
    w = precise.mapping(precise.sample_z(5000, seed=0))[:, 0]
    covariance = torch.cov(w.t()) + 1e-8 * torch.eye(len(factor))
    assert_close(factor @ factor.t(), covariance + floor_of(covariance), 1e-9)


def test_principal_styles_are_whitened_along_the_axes_of_the_layers(precise):
    like = {"w": torch.zeros(1, dtype=torch.float64)}
    basis = make_space("W+", precise, SpaceOptions()).step_basis(precise, like, principal=True)["w"]
    factor = precise.statistics().factor_w
    assert_close(basis @ basis.t(), factor @ factor.t(), 1e-9)
    found = style_matrix(precise, range(precise.num_styles)) @ basis
    reactions = found.t() @ found
    squares = reactions.diagonal()
    assert_close(reactions, torch.diag(squares), 1e-9 * float(squares.max()))
    assert torch.equal(squares.sort().values, squares) and squares[-1] > 2 * squares[0]
    first = sefa_directions(precise, 1, normalise=False, whiten=True).directions["0"].styles[0].double()
    assert_close(first, basis[:, -1] * (first @ basis[:, -1]).sign(), 1e-5)


def test_styles_that_no_layer_reads_linearly_are_whitened_alone():
    linear = LinearGenerator()
    assert torch.equal(linear.style_axes(), linear.statistics().factor_w)


@pytest.mark.parametrize("name", NAMES)
def test_penalties_at_the_start(generator, name):
    problem = toy_problem(generator, [name], batch=2)
    parts = problem.penalties(problem.start())
    assert all(value.shape == (2,) and torch.isfinite(value).all() for value in parts.values())
    assert all(not value.any() for part, value in parts.items() if part in ("deviation", "feature", "noise"))
    moved = problem.penalties(perturbed(problem))
    assert all((moved[part] != parts[part]).all() for part in parts if part != "deviation" or name in ("W+", *FEATURES))


def test_penalties_of_one_name_add_up(generator):
    problem = toy_problem(generator, ["W+", "F4", "F6"])
    y = perturbed(problem)
    apart = [s.penalty(generator, y[s.name], {})["feature"] for s in problem.spaces if s.spatial]
    assert_close(problem.penalties(y)["feature"], torch.stack(apart).sum(0), 1e-6)


def test_the_noise_penalty_is_measured_from_the_generators_noise(generator):
    problem = toy_problem(generator, ["N"])
    y = problem.start()
    y["N"]["noise3"] = y["N"]["noise3"] + 2.0
    assert_close(problem.penalties(y)["noise"], torch.tensor([4.0]), 1e-5)


def test_zero_steps_return_the_start(generator):
    problem = toy_problem(generator, ["W+", "F4", "N"], batch=2)
    solution = solve(problem, BestSoFar(Adam()), max_steps=0)
    start = problem.start()
    assert all(torch.equal(solution.latents[s][k], t) for s, v in start.items() for k, t in v.items())
    assert torch.equal(solution.image, problem.render(start))
    assert solution.statuses == [Status.COMPLETED] * 2
    assert solution.stats["steps"].tolist() == [0, 0]
