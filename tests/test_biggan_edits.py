"""Edits of noise and class embedding of a BigGAN-deep, as in Fig. 4.4 of the SAM report, and their spaces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from safetensors.torch import save_file
from toys import perturbed, toy, toy_problem

import saminv
from saminv import InputError, Regions, Solution
from saminv.editing import (
    class_direction,
    editing_consistency,
    ganspace_directions,
    latent_distance,
    render_edit,
    resolve_direction,
    safe_strength,
    sefa_directions,
)
from saminv.editing.mix import render_latents
from saminv.editing.safe import SAMPLES
from saminv.editing.strips import draw_frames, draw_samples, sample_solution
from saminv.generators import style_layers
from saminv.sites import Replace
from saminv.spaces import make_space, resolve_spaces
from saminv.spaces._base import SpaceOptions

LABEL = 1
QUICK = {"metric": "mse", "segmenter": "none", "device": "cpu"}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def biggan():
    return toy("biggan_deep")


@pytest.fixture(scope="module")
def halved(biggan):
    """The left half in Z+, the right one in F2."""
    target = biggan(biggan.sample_z(1, seed=45), LABEL).clamp(-1, 1)
    labels = (torch.arange(32) >= 16).long().expand(1, 32, 32)
    regions = Regions(labels.contiguous(), ("Z+", "F2"))
    return saminv.invert(target, generator=biggan, label=LABEL, invertibility=regions, encoder="mean", steps=3, **QUICK)


@pytest.mark.parametrize("part", ["z", "class"])
def test_a_part_leaves_the_other_alone(biggan, part):
    slots, width = biggan.site(part).shape
    vector = torch.randn(width)
    change = resolve_direction({part: vector}, biggan)
    found = biggan.synthesis(change, until=("z", "class"))
    assert torch.equal(found[part][0], vector.expand(slots, -1))
    assert not found["class" if part == "z" else "z"].any() and not change[..., -1].any()
    each = torch.randn(slots, width)
    assert torch.equal(biggan.synthesis(resolve_direction({part: each}, biggan), until=part)[part][0], each)


@pytest.mark.parametrize("part", ["z", "class"])
def test_regions_of_a_feature_follow_in_later_blocks(biggan, halved, part):
    """Slots 0 to 3 make F2: what they change reaches the half in Z+, the later ones change both."""
    early, late = torch.zeros(2, *biggan.site(part).shape)
    early[:4], late[4:] = 2.0, 2.0
    moved = [(halved.edit({part: change}) - halved.image).abs().amax(dim=1)[0] for change in (early, late)]
    assert moved[0][:, :12].max() > 0.05 and moved[1][:, :12].max() > 0.05 and moved[1][:, 20:].max() > 0.05
    whole = replace(halved, regions=Regions.uniform(1, (32, 32), ("Z+", "F2"), "F2"))
    plain = render_latents(whole, whole.latents)
    assert_close(whole.edit({part: early}), plain, 1e-6)
    assert (whole.edit({part: late}) - plain).abs().max() > 0.05


def test_a_class_by_its_number(biggan, halved, tmp_path):
    expected = halved.edit(class_direction(biggan, LABEL, 3), [0.5, 1.0])
    assert torch.equal(halved.edit("class:3", [0.5, 1.0]), expected)
    vector = biggan.embedding.weight[:, 3] - biggan.embedding.weight[:, LABEL]
    assert_close(halved.edit({"class": vector}, [0.5, 1.0]), expected, 1e-5)
    save_file({"class": vector.clone(), "z": torch.zeros(6)}, tmp_path / "to-3.safetensors")
    assert_close(halved.edit(tmp_path / "to-3.safetensors", [0.5, 1.0]), expected, 1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.05
    soft = 0.5 * torch.eye(4)[3] + 0.5 * torch.eye(4)[LABEL]
    assert_close(halved.edit(class_direction(biggan, LABEL, soft)), expected[:1], 1e-5)


def test_classes_and_parts_go_together(biggan, halved):
    one, other = (class_direction(biggan, LABEL, label) for label in (3, 0))
    assert_close(halved.edit({"class:3": 0.5, "class:0": -0.2}), halved.edit(0.5 * one - 0.2 * other), 1e-5)
    noise = torch.randn(6)
    both = halved.edit([({"z": noise}, 1.0), ("class:3@2-4", 0.5)], [0.0, 2.0])
    change = resolve_direction({"z": noise}, biggan)[0]
    change[2:5] += 0.5 * one[2:5]
    assert_close(both, halved.edit(change, [0.0, 2.0]), 1e-5)
    assert_close(both[:1], halved.image, 1e-5)
    with pytest.raises(InputError, match="or is several"):
        resolve_direction({"class:3": 0.5, "class:0": 0.5}, biggan, LABEL)


def test_an_array_of_a_file_of_parts(biggan, tmp_path):
    path = tmp_path / "parts.safetensors"
    save_file({"class": torch.ones(5), "z": torch.ones(6)}, path)
    assert torch.equal(resolve_direction(f"{path}#z", biggan), resolve_direction({"z": torch.ones(6)}, biggan))
    with pytest.raises(InputError, match="has no array 'w'; it has: class, z"):
        resolve_direction(f"{path}#w", biggan)


def likelihood(generator, styles):
    """Distance of noise from 0 and of class embeddings from their mean over classes, root mean square over slots."""
    z, c, _ = styles.double().split([6, 5, 1], dim=2)
    weight = generator.embedding.weight.double()
    c = (c - weight.mean(dim=1)) / weight.std(dim=1)
    return (z.square().sum(dim=2) + c.square().sum(dim=2)).mean(dim=1).sqrt()


@pytest.mark.parametrize("direction", [{"z": torch.ones(6)}, "class:3"])
def test_a_safe_step_keeps_noise_and_class_likely(biggan, direction):
    solution = sample_solution(biggan, 2, seed=3, label=LABEL)
    styles = biggan.mapping(biggan.sample_z(2, 3), LABEL)
    assert_close(latent_distance(solution), likelihood(biggan, styles), 1e-6)
    classes = torch.arange(SAMPLES) * 4 // SAMPLES
    samples = biggan.mapping(biggan.sample_z(SAMPLES, 2), torch.eye(4)[classes])
    own = likelihood(biggan, styles)
    limit = torch.maximum(likelihood(biggan, samples).quantile(0.99), 1.1 * own)
    strength, change = safe_strength(solution, direction), resolve_direction(direction, biggan, LABEL)
    assert ((strength > 0) & (strength < 10)).all()
    assert (likelihood(biggan, styles + strength[:, None, None] * change) <= limit * (1 + 1e-4)).all()
    assert (likelihood(biggan, styles + (strength[:, None, None] + 0.02) * change) > limit).all()
    for row, image in enumerate(solution.edit(direction, safe=True)):
        assert_close(image, solution[row].edit(direction, float(strength[row]))[0], 1e-4)


def test_outside_of_a_mask_nothing_changes(halved):
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :12] = 1
    inside, everywhere = halved.edit("class:3", within=mask), halved.edit("class:3")
    assert torch.equal(inside[..., 13:], halved.image[..., 13:])
    assert (everywhere - halved.image)[..., 13:].abs().max() > 0.05
    assert (inside - halved.image)[..., :8].abs().max() > 0.05


def test_samples_are_shown(biggan):
    found = sample_solution(biggan, 2, seed=5, label=LABEL)
    assert found.spaces == ("Z+",)
    assert_close(found.image, render_latents(found, found.latents), 1e-6)
    assert_close(found.edit("class:3"), biggan(biggan.sample_z(2, 5), 3), 1e-5)
    one = draw_samples(biggan, ["class:3"], [0.0, 1.0], label=LABEL)
    two = draw_samples(biggan, ["class:3", {"z": torch.ones(6)}], [0.0, 1.0], label=LABEL)
    assert two.shape[3] == one.shape[3] and two.shape[2] > 1.5 * one.shape[2]
    assert torch.equal(draw_frames(found[0], ["class:3"], [0.0, 1.0], 2)[2], found[0].edit("class:3")[0])


def test_what_is_found_leaves_the_class_alone(biggan):
    found = sefa_directions(biggan, 10, label=LABEL)
    assert len(found) == 6
    weights = [biggan.first.weight] + [norm.condition.weight for block in biggan.blocks for norm in block.norms]
    assert sum(layer.channels for layer in style_layers(biggan)) == sum(len(weight) for weight in weights)
    rows = torch.nn.functional.normalize(torch.cat(weights)[:, :6].double(), dim=1)
    expected = torch.linalg.svd(rows).Vh
    for k, direction in enumerate(found.directions.values()):
        assert not direction.styles[:, 6:].any()
        step = torch.nn.functional.normalize(direction.styles[0, :6].double(), dim=0)
        assert abs(float(step @ expected[k])) > 1 - 1e-4
    components = ganspace_directions(biggan, 3, "F1", samples=60, label=LABEL)
    rows = [direction.styles for direction in components.directions.values()]
    assert all(row[:, :6].any() and row[:, 6:].abs().max() < 1e-5 for row in rows)


def test_a_round_of_an_edit_of_the_class(biggan):
    solution = sample_solution(biggan, 1, seed=6, label=LABEL)
    other = sample_solution(biggan, 1, seed=6, label=3)
    found = editing_consistency(solution, "class:3", invert=lambda _: other)
    assert_close(found.edited, other.image.clamp(-1, 1), 1e-5)
    assert found.relative.max() < 1e-5
    assert_close(found.returned, solution.image.clamp(-1, 1), 1e-5)
    still = editing_consistency(solution, "class:3", invert=lambda _: solution)
    assert_close(still.relative, torch.ones(1), 1e-5)


def test_the_other_class_is_reached(biggan):
    """In Z+ alone, strength 1 renders the noise under the other class."""
    problem = toy_problem(biggan, ["Z+"])
    y = perturbed(problem)
    change = class_direction(biggan, LABEL, 3)[None]
    edited = render_edit(biggan, problem.spaces, y, problem.regions, change)
    assert_close(edited, biggan.synthesis(biggan.mapping(y["Z+"]["z"], 3)), 1e-5)


@pytest.mark.parametrize("name", ["C", "C+"])
def test_an_optimised_class_is_edited_from_where_it_is(biggan, name):
    problem = toy_problem(biggan, ["Z+", name])
    y = perturbed(problem, 0.5)
    embedded = y[name]["class"] if name == "C+" else y[name]["class"][:, None].expand(-1, 6, -1)
    change = class_direction(biggan, LABEL, 3)[None]
    edited = render_edit(biggan, problem.spaces, y, problem.regions, change)
    moved = embedded + (biggan.embedding.weight[:, 3] - biggan.embedding.weight[:, LABEL])
    styles = biggan.mapping(y["Z+"]["z"], LABEL)
    assert_close(edited, biggan.synthesis(styles, [Replace("class", moved)]), 1e-5)


def test_a_class_is_found(biggan):
    """From label 1, the class embedding of label 3 is approached where the target is of it."""
    styles = biggan.mapping(biggan.sample_z(2, seed=46), 3)
    target = biggan.synthesis(styles).clamp(-1, 1)
    settings = {"generator": biggan, "label": LABEL, "encoder": styles, "steps": 40, **QUICK}
    fixed = saminv.invert(target, ["Z+"], **settings)
    free = saminv.invert(target, ["Z+", "C"], **settings)
    assert (free.stats["psnr"] > fixed.stats["psnr"] + 3).all()
    wanted, start = (biggan.embedding.weight[:, label] for label in (3, LABEL))
    found = free.latents["C"]["class"]
    assert ((found - wanted).norm(dim=1) < 0.7 * (start - wanted).norm()).all()


def test_penalties_of_noise_and_class_are_the_formulas():
    generator = toy("biggan_deep", torch.float64)
    z, c = torch.randn(2, 6, 6, dtype=torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)
    for formulation in ("paper", "published"):
        options = SpaceOptions(formulation=formulation, label=1)
        parts = make_space("Z+", generator, options).penalty(generator, {"z": z}, {})
        steps = (z[:, 1:] - z[:, :1]).norm(dim=2)
        assert_close(parts["prior"], (z**2).sum((1, 2)), 1e-12)
        assert_close(parts["deviation"], (steps**2 if formulation == "paper" else steps).sum(1), 1e-12)
    spread = generator.embedding.weight.std(dim=1)
    found = make_space("C+", generator, options).penalty(generator, {"class": c}, {"class": 0 * c})
    assert_close(found["class"], ((c / spread) ** 2).mean((1, 2)), 1e-12)


@pytest.mark.parametrize(
    "direction, words",
    [
        (torch.ones(6), ["[12] or [6, 12]", "'z' [6] or [6, 6]", "'class' [5] or [6, 5]"]),
        ({"z": torch.ones(5)}, ["part 'z' is [5]", "[6] or [6, 6]"]),
        ({"F2": torch.ones(6)}, ["no part F2", "styles, z, class"]),
        ({}, ["must be an array", "styles, z, class"]),
        ({"class": torch.full((5,), torch.nan)}, ["finite"]),
        ("class:4", ["label 4", "4 classes"]),
        ("class:x", ["Unknown direction", "class:K"]),
    ],
)
def test_directions_that_do_not_fit(halved, direction, words):
    with pytest.raises(InputError) as caught:
        halved.edit(direction)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "names, words",
    [
        (["C", "C+"], "C and C\\+ both set the site 'class'"),
        (["Z", "Z+"], "Z and Z\\+ both set the site 'styles'"),
        (["W+", "F2"], "It has no W\\+, since no mapping network"),
        (["F5"], "Unknown space 'F5'"),
    ],
)
def test_spaces_that_do_not_go_together(biggan, names, words):
    with pytest.raises(InputError, match=words):
        resolve_spaces(names, biggan)


def test_an_inversion_needs_a_label(biggan):
    with pytest.raises(InputError, match="needs a label"):
        saminv.invert(torch.zeros(1, 3, 32, 32) - 0.1, generator=biggan, **QUICK)


def test_soft_labels_are_kept(biggan, tmp_path):
    soft = torch.tensor([0.2, 0.3, 0.5, 0.0])
    target = biggan(biggan.sample_z(1, seed=47), soft).clamp(-1, 1)
    solution = saminv.invert(target, generator=biggan, label=soft, steps=2, **QUICK)
    again = Solution.load(solution.save(tmp_path / "soft.safetensors"), generator=biggan)
    assert_close(again.edit({"z": torch.zeros(6)}), solution.image, 1e-5)


def test_a_class_direction_of_a_stylegan_is_the_difference_of_mean_styles():
    generator = toy("stylegan2", label_dim=3)
    found = class_direction(generator, 0, 2)
    means = [generator.statistics(torch.eye(3)[label]).mean_w for label in (0, 2)]
    assert_close(found, (means[1] - means[0]).expand(8, -1), 1e-6)
    with pytest.raises(InputError, match="takes no label"):
        class_direction(toy("stylegan2"), 0, 2)
