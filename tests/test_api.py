"""saminv.invert and its friends on a toy generator: every kind of input, good and bad, and what comes back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from helpers import assert_close
from PIL import Image
from toys import toy_stylegan2

import saminv
from saminv import (
    CheckpointError,
    GivenInvertibility,
    GivenRegions,
    InputError,
    Regions,
    Solution,
    Status,
    WeightsError,
)
from saminv._arguments import make_recipe
from saminv._recipe import DEFAULT_TAU, FAR_TAU
from saminv.encoders import make_encoder
from saminv.generators import save_generator
from saminv.images import from_uint8
from saminv.metrics.pixel import MSE
from saminv.optim import LBFGS, Adam
from saminv.optim.start import SAMPLES
from saminv.segment import Felzenszwalb, WholeImage

QUICK = {"metric": "mse", "segmenter": "none", "steps": 2, "encoder": "mean", "device": "cpu"}
SPACES = ("W+", "F4", "F6")


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def conditional():
    return toy_stylegan2(label_dim=3)


@pytest.fixture(scope="module")
def wide():
    """Pictures of 24 x 32 pixels inside a canvas of 32 x 32."""
    return toy_stylegan2(crop=(24, 32))


@pytest.fixture(scope="module")
def pictures(generator):
    """Pictures `[3, 3, 32, 32]` of the generator, none of them among the samples that a start is chosen from."""
    return generator.synthesis(generator.mapping(generator.sample_z(3, seed=77))).clamp(-1, 1)


@pytest.fixture()
def quick(generator):
    def run(img, spaces=SPACES, tau=0.3, **settings):
        return saminv.invert(img, spaces, tau, **({"generator": generator} | QUICK | settings))

    return run


def hwc(tensor):
    """uint8 `[H, W, 3]` of one picture."""
    return ((tensor + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def stranger(generator, count):
    """Pictures with grain in their right half, which no style makes, their segments, and styles of the rest."""
    height, width = generator.image_size
    styles = generator.mapping(generator.sample_z(count, seed=77))
    source = torch.Generator().manual_seed(0)
    grain = torch.rand(count, 3, height, width, generator=source) * 2 - 1
    right = torch.arange(width).expand(height, -1) >= width // 2
    images = torch.where(right, grain, generator.synthesis(styles).clamp(-1, 1).float())
    return images, right.long(), styles


# What comes back.


def test_a_plain_call_fills_every_field(generator, pictures):
    solution = saminv.invert(pictures, generator=generator, metric="mse", steps=4)
    assert len(solution) == 3 and solution.image.shape == solution.target.shape == (3, 3, 32, 32)
    assert solution.spaces == generator.default_spaces == solution.regions.spaces
    assert solution.spaces[:2] == ("W+", "F4") and solution.regions.size == (32, 32)
    assert solution.segments.shape == (3, 32, 32)
    assert torch.equal(solution.target, pictures)
    assert solution.generator is generator
    assert all(value.shape == (3,) for value in solution.stats.values())
    assert {"psnr", "ssim", "mse", "loss", "steps", "domain_distance", "share/W+", "share/F4"} <= set(solution.stats)
    assert_close(solution.stats["mse"], (solution.image - pictures).square().mean((1, 2, 3)), 1e-6)
    shares = sum(solution.stats[f"share/{name}"] for name in solution.spaces)
    assert_close(shares, torch.ones(3), 1e-6)
    assert not solution.image.requires_grad


def test_more_steps_come_closer(quick, pictures):
    start, some, more = (quick(pictures, ["W+", "F4"], steps=n).stats["psnr"] for n in (0, 8, 25))
    assert (start < some).all() and (some < more).all()


def test_the_provenance_is_json_and_complete(quick, pictures, generator):
    solution = quick(pictures, ["W+", "F4"], 0.25, seed=4, tap_point="block", weights={"l2": 2.0})
    provenance = json.loads(json.dumps(solution.provenance, allow_nan=False))
    assert provenance == solution.provenance
    expected = {"steps": 2, "seed": 4, "tau": 0.25, "metric": "mse", "noise": "const", "spaces": ["W+", "F4"]}
    assert expected.items() <= provenance.items()
    assert provenance["fingerprint"] == generator.fingerprint
    assert provenance["space_options"]["tap_point"] == "block"
    assert provenance["weights"]["l2"] == 2.0
    assert provenance["saminv"] == saminv.__version__
    assert provenance["names"] == ["image-0", "image-1", "image-2"] and len(provenance["crops"]) == 3


def test_a_solution_goes_through_a_file(quick, pictures, generator, tmp_path):
    solution = quick(pictures, ["W+", "F4", "N"], segmenter="felzenszwalb")
    loaded = Solution.load(solution.save(tmp_path / "s.safetensors"), generator)
    direction = torch.ones(generator.style_dim)
    assert torch.equal(loaded.edit(direction, [0.0, 1.0]), solution.edit(direction, [0.0, 1.0]))
    assert torch.equal(saminv.edit(loaded, direction, 1.0), solution.edit(direction, 1.0))
    assert loaded.provenance == solution.provenance


@pytest.mark.parametrize("tap_point, skip", [("layer", "blend"), ("block", "blend")])
def test_an_edit_of_strength_zero_is_the_reconstruction(quick, pictures, generator, tap_point, skip):
    given = GivenRegions(np.arange(32)[:, None].repeat(32, 1) // 11, ["W+", "F2", "F4"])
    solution = quick(pictures, ["W+", "F2", "F4"], invertibility=given, tap_point=tap_point, skip=skip, steps=6)
    assert_close(solution.edit(torch.ones(generator.style_dim), 0.0), solution.image, 1e-6)


def test_the_same_seed_gives_the_same_bits(generator, pictures):
    def run(seed, ambient):
        torch.manual_seed(ambient)
        settings = {"metric": "mse", "segmenter": "none", "steps": 3, "noise": "random"}
        return saminv.invert(pictures, generator=generator, seed=seed, **settings)

    first, second, other = run(1, ambient=0), run(1, ambient=9), run(2, ambient=0)
    for space, value in first.latents.items():
        for key, tensor in value.items():
            assert torch.equal(tensor, second.latents[space][key])
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.latents["W+"]["w"], other.latents["W+"]["w"])


def test_a_call_leaves_the_random_numbers_of_its_caller_alone(quick, pictures):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    quick(pictures, encoder="auto", noise="random")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_call_leaves_pictures_and_generator_alone(quick, pictures, generator):
    before, weights = pictures.clone(), generator.fingerprint
    quick(pictures, steps=3)
    generator._fingerprint = None
    assert torch.equal(pictures, before) and generator.fingerprint == weights
    assert all(not parameter.requires_grad for parameter in generator.parameters())


@pytest.mark.parametrize("encoder", ["nearest", "mean", "styles"])
def test_a_batch_equals_its_images_alone(encoder):
    precise = toy_stylegan2(torch.float64)
    images, label, styles = stranger(precise, 3)
    settings = QUICK | {"generator": precise, "spaces": SPACES, "tau": 0.03, "segmenter": label, "steps": 10}
    starts = [styles[row] if encoder == "styles" else encoder for row in range(3)]
    together = saminv.invert(images, **settings | {"encoder": styles if encoder == "styles" else encoder})
    if encoder == "styles":
        assert together.regions.labels.unique().numel() > 1
    for row in range(3):
        alone = saminv.invert(images[row], **settings | {"encoder": starts[row]})
        assert torch.equal(alone.regions.labels[0], together.regions.labels[row])
        assert alone.status[0] == together.status[row]
        assert_close(alone.image, together.image[row : row + 1], 1e-10)
        for space, value in alone.latents.items():
            for key, tensor in value.items():
                assert (tensor - together.latents[space][key][row]).abs().max() < 1e-10
        for key, value in alone.stats.items():
            # Distances between pictures come from matrix products, which keep fewer digits.
            assert abs(value[0] - together.stats[key][row]) < (1e-6 if key == "domain_distance" else 1e-8), key


def test_zero_steps_return_the_start(quick, pictures, generator):
    solution = quick(pictures, steps=0)
    mean = generator.statistics().mean_w.float().expand(3, generator.num_styles, -1)
    assert_close(solution.latents["W+"]["w"], mean, 1e-6)
    assert not solution.latents["F4"]["delta"].any()
    assert solution.statuses == [Status.COMPLETED] * 3 and not solution.stats["steps"].any()


def test_one_space_needs_no_measuring_and_may_stop_early(quick, pictures):
    solution = quick(pictures[:1], ["W"], steps=80, rate=1e-7)
    assert solution.statuses == [Status.PLATEAU]
    assert solution.stats["steps"] < 80 and solution.stats["share/W"] == 1


@pytest.mark.parametrize(
    "spaces, regions",
    [
        (["F4"], ("F4",)),
        (["F6", "F4"], ("F4", "F6")),
        (["W", "F4"], ("W", "F4")),
        (["N"], ("W+",)),
        (["Z", "N"], ("Z",)),
        (("F6", "W+"), ("W+", "F6")),
    ],
)
def test_segments_are_shared_out_among_the_named_spaces(quick, pictures, spaces, regions):
    """A feature alone is a feature everywhere; global spaces take no segments."""
    assert quick(pictures[:1], spaces).regions.spaces == regions


@pytest.mark.parametrize("tau, share", [(0.0, 0.0), (0.1, 0.5), (math.inf, 1.0)])
def test_tau_decides_how_much_stays_editable(quick, generator, tau, share):
    images, label, styles = stranger(generator, 2)
    solution = quick(images, SPACES, tau, segmenter=label, encoder=styles, steps=12)
    assert solution.stats["share/W+"].tolist() == [share, share]
    assert tau > 0 or solution.stats["share/F6"].tolist() == [1.0, 1.0]


# Ways to pass pictures.


def test_pictures_of_any_kind_are_the_same_picture(quick, pictures, tmp_path):
    array = hwc(pictures[0])
    Image.fromarray(array).save(tmp_path / "car.png")
    tensor = from_uint8(array)
    expected = quick(tensor)
    kinds = {
        "path": tmp_path / "car.png",
        "string": str(tmp_path / "car.png"),
        "PIL": Image.fromarray(array),
        "HWC": array,
        "CHW": array.transpose(2, 0, 1),
        "uint8 tensor": torch.from_numpy(array),
        "float": tensor[0],
        "double": tensor.double(),
        "float array": tensor[0].numpy(),
        "list": [array],
        "tuple": (tmp_path / "car.png",),
        "iterator": iter([array]),
    }
    for kind, picture in kinds.items():
        solution = quick(picture)
        assert torch.equal(solution.image, expected.image), kind
        assert len(solution) == 1
    assert quick(tmp_path / "car.png").provenance["names"] == ["car"]


def test_a_batch_is_as_many_pictures(quick, pictures):
    expected = quick(pictures)
    assert len(quick(list(pictures))) == len(expected) == 3
    assert torch.equal(quick(list(pictures)).image, expected.image)
    stacked = quick(np.stack([hwc(picture) for picture in pictures]))
    assert len(stacked) == 3 and stacked.target.dtype == torch.float32


def test_a_list_of_pictures_of_all_sizes(quick, tmp_path):
    random = np.random.default_rng(0)
    sizes = [(32, 32), (40, 56), (200, 20), (64, 64), (9, 8)]
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    Image.fromarray(images[1]).save(tmp_path / "a.png")
    solution = quick(
        [images[0], tmp_path / "a.png", Image.fromarray(images[2]), images[3].transpose(2, 0, 1), images[4]]
    )
    assert solution.image.shape == (5, 3, 32, 32)
    assert [tuple(crop["source_size"]) for crop in solution.provenance["crops"]] == sizes
    assert solution.provenance["crops"][2]["mode"] == "letterbox"
    assert quick(images[2], fit_mode="crop").provenance["crops"][0]["mode"] == "crop"
    assert len(set(solution.provenance["names"])) == 5


def test_a_generator_that_is_not_square(wide):
    images, label, styles = stranger(wide, 2)
    settings = QUICK | {"generator": wide, "segmenter": label, "encoder": styles}
    solution = saminv.invert(images, ["W+", "F6"], 0.1, **settings | {"steps": 20})
    assert solution.image.shape == (2, 3, 24, 32) and solution.regions.size == (24, 32)
    assert torch.equal(solution.regions.labels, label.expand(2, -1, -1))
    start = saminv.invert(images, ["W+", "F6"], **settings | {"steps": 0})
    assert (solution.stats["psnr"] > start.stats["psnr"] + 1).all()
    direction = torch.randn(wide.style_dim, generator=torch.Generator().manual_seed(0))
    assert_close(solution.edit(direction, 0.0), solution.image, 1e-6)
    assert solution.edit(direction, [0.5, 1.0]).shape == (4, 3, 24, 32)
    # Only the last toRGB, which reads the last style, comes after F6.
    early = torch.cat([direction.expand(7, -1), torch.zeros(1, wide.style_dim)])
    change = (solution.edit(early) - solution.image).abs().amax(dim=1, keepdim=True)
    assert change[solution.regions.full("F6")].max() < 1e-5
    assert change[solution.regions.full("W+")].mean() > 0.05


def test_a_square_picture_in_a_generator_that_is_not(wide, quick):
    square = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crop = quick(square, generator=wide).provenance["crops"][0]
    assert crop["mode"] == "crop" and crop["box"] == [0, 8, 64, 56] and crop["size"] == [24, 32]


# Other settings.


def test_generators_by_file_and_as_they_are(generator, pictures, quick, tmp_path):
    path = save_generator(generator, tmp_path / "toy.safetensors")
    assert saminv.load_generator(generator) is generator
    assert saminv.load_generator(path).fingerprint == generator.fingerprint
    expected = quick(pictures[:1])
    for spelled in (path, str(path)):
        assert torch.equal(quick(pictures[:1], generator=spelled).image, expected.image)


def test_segmenters_of_every_kind(quick, pictures, tmp_path):
    label = np.arange(32)[:, None].repeat(32, 1) // 16
    np.save(tmp_path / "label.npy", label)
    Image.fromarray(label.astype(np.uint8)).save(tmp_path / "label.png")
    for segmenter in (label, torch.from_numpy(label), str(tmp_path / "label.npy"), tmp_path / "label.png"):
        segments = quick(pictures, segmenter=segmenter).segments
        assert torch.equal(segments, torch.from_numpy(label).expand(3, -1, -1))
    assert not quick(pictures, segmenter="none").segments.any()
    assert not quick(pictures, segmenter=WholeImage()).segments.any()
    assert torch.equal(
        quick(pictures, segmenter="felzenszwalb").segments, quick(pictures, segmenter=Felzenszwalb()).segments
    )


def test_measured_regions_are_whole_segments(quick, generator):
    images, _, styles = stranger(generator, 3)
    solution = quick(images, SPACES, 0.1, segmenter="felzenszwalb", encoder=styles, steps=12)
    assert solution.regions.labels.unique().numel() > 1
    for row in range(3):
        for segment in solution.segments[row].unique():
            assert solution.regions.labels[row][solution.segments[row] == segment].unique().numel() == 1


def test_given_maps_and_regions(quick, pictures):
    left = torch.zeros(32, 32)
    left[:, :16] = 1.0
    maps = GivenInvertibility({"W+": left, "F4": 0.1 + 0 * left, "F6": 0 * left})
    label = np.arange(32)[None].repeat(32, 0) // 16
    solution = quick(pictures, ["W+", "F4", "F6"], 0.3, invertibility=maps, segmenter=label)
    expected = torch.from_numpy(1 - label).expand(3, -1, -1)
    assert torch.equal(solution.regions.labels, expected)
    drawn = GivenRegions(1 - label, ["W+", "F4"])
    assert torch.equal(quick(pictures, ["W+", "F4"], invertibility=drawn).regions.labels, expected)
    regions = Regions(expected.contiguous(), ("W+", "F4"))
    assert torch.equal(quick(pictures, ["W+", "F4"], invertibility=regions).regions.labels, expected)
    assert quick(pictures, ["W+", "F4"], invertibility=drawn).provenance["invertibility"] == "GivenRegions"


def test_starts_of_every_kind(quick, pictures, generator):
    styles = generator.mapping(generator.sample_z(3, seed=5))

    def start(encoder, spaces=("W+", "F4")):
        return quick(pictures, spaces, encoder=encoder, steps=0)

    assert torch.equal(start(styles).latents["W+"]["w"], styles)
    assert torch.equal(start(styles[0]).latents["W+"]["w"], styles[:1].expand(3, -1, -1))
    assert torch.equal(start(styles[:1]).latents["W+"]["w"], styles[:1].expand(3, -1, -1))
    assert torch.equal(start("none").latents["W+"]["w"], start("mean").latents["W+"]["w"])
    mean, nearest, between = (start(name).latents["W+"]["w"] for name in ("mean", "nearest", "auto"))
    assert not torch.equal(mean, nearest)
    assert_close(between, mean + 0.3 * (nearest - mean), 1e-6)
    before = quick(pictures, ["W+", "F4"], steps=4)
    again = start(before)
    assert torch.equal(again.image, before.image)
    more = start(before, ["W+", "F4", "F6"])
    assert torch.equal(more.latents["F4"]["delta"], before.latents["F4"]["delta"])
    assert not more.latents["F6"]["delta"].any()


def test_the_nearest_sample_is_found(quick, generator):
    """A picture that is one of the samples starts at that sample."""
    styles = generator.mapping(generator.sample_z(SAMPLES, seed=0))[[3, SAMPLES - 1]]
    solution = quick(generator.synthesis(styles).clamp(-1, 1), encoder="nearest", steps=0)
    assert_close(solution.latents["W+"]["w"], styles, 1e-6)
    assert (solution.stats["domain_distance"] < 0.5).all()


def test_conditional_generators(conditional, tmp_path):
    label = torch.tensor([0.0, 1.0, 0.0])
    images = conditional.synthesis(conditional.mapping(conditional.sample_z(2, seed=7), label)).clamp(-1, 1)
    settings = QUICK | {"generator": conditional, "encoder": "nearest"}
    by_number = saminv.invert(images, ["Z", "F4"], label=1, **settings)
    by_vector = saminv.invert(images, ["Z", "F4"], label=label, **settings)
    assert torch.equal(by_number.image, by_vector.image)
    assert not torch.equal(by_number.image, saminv.invert(images, ["Z", "F4"], label=2, **settings).image)
    direction = torch.ones(conditional.style_dim)
    for solution in (by_number, by_vector):
        assert json.dumps(solution.provenance)
        loaded = Solution.load(solution.save(tmp_path / "c.safetensors"), conditional)
        assert torch.equal(loaded.edit(direction), solution.edit(direction))
        assert_close(loaded[1].edit(direction, 0.0), solution.image[1:], 1e-5)


def test_the_published_form_runs_through(quick, pictures):
    solution = quick(pictures, ["W+", "F4"], formulation="published", tap_point="block", skip="published", steps=3)
    assert solution.regions.formulation == "published"
    assert solution.provenance["weights"]["feature"] == 5.0
    assert not solution.provenance["space_options"]["whiten_features"]


def test_rates_of_single_spaces(quick, pictures):
    start = quick(pictures, ["F4"], steps=0).latents
    slow = quick(pictures, ["F4"], rates={"F4": 1e-12}, steps=3).latents
    assert (slow["F4"]["delta"] - start["F4"]["delta"]).abs().max() < 1e-9
    assert (slow["W+"]["w"] - start["W+"]["w"]).abs().max() > 1e-3


def test_a_metric_may_be_an_object(quick, pictures):
    assert torch.equal(quick(pictures, metric=MSE()).image, quick(pictures).image)


def test_without_the_file_of_the_usual_metric_another_one_is_named(generator, pictures, monkeypatch):
    def lacking(name: str) -> None:
        raise WeightsError(f"Could not fetch {name}.")

    monkeypatch.setattr("saminv._arguments.get_metric", lacking)
    with pytest.raises(WeightsError, match=r"fetch lpips-vgg.*do without it: metric='mse'"):
        saminv.invert(pictures, generator=generator, steps=1)
    with pytest.raises(WeightsError, match=r"fetch lpips-alex\.$"):
        saminv.invert(pictures, generator=generator, metric="lpips-alex", steps=1)


def test_a_start_in_other_spaces_keeps_the_styles(quick, pictures):
    """A W+ inversion warms up a W one by its mean."""
    before = quick(pictures, ["W+"], steps=4)
    after = quick(pictures, ["W"], encoder=before, steps=0)
    assert_close(after.latents["W"]["w"], before.latents["W+"]["w"].mean(dim=1), 1e-6)


# The demo generator.


@pytest.fixture(scope="module")
def demo():
    try:
        return saminv.load_generator("demo")
    except CheckpointError as error:
        pytest.skip(f"the demo's weights are not here: {error}")


def test_the_demo_generator_is_the_default(demo):
    assert saminv.load_generator() is saminv.load_generator("demo") is demo
    assert demo.image_size == (128, 128) and demo.default_spaces[:3] == ("W+", "F4", "F6")


def test_a_picture_far_from_the_domain_is_warned_of_with_its_figure(demo, tmp_path):
    """Grain is, a scene beside it is not; both know their generator by name."""
    grain = np.random.default_rng(0).integers(0, 2, (128, 128, 3), dtype=np.uint8) * 255
    Image.fromarray(grain).save(tmp_path / "grain.png")
    scene = saminv.demo.sample_scenes(1, seed=5).images
    settings = {"metric": "mse", "segmenter": "none", "steps": 1, "device": "cpu"}
    with pytest.warns(UserWarning) as caught:
        solution = saminv.invert([tmp_path / "grain.png", scene], ["W+"], **settings)
    assert len(caught) == 1
    grainy, clean = solution.stats["domain_distance"].tolist()
    assert grainy > 2 > clean
    assert str(caught[0].message).startswith("grain looks far from") and f"{grainy:.1f} times" in str(caught[0].message)
    assert caught[0].filename == __file__, "the warning points at the caller"
    assert solution.stats["tau"].tolist() == [FAR_TAU, DEFAULT_TAU], "likeness counts more for what W+ cannot make"
    assert solution.provenance["generator"] == "demo"
    loaded = Solution.load(solution.save(tmp_path / "scene.safetensors"))
    assert loaded.generator is demo
    with pytest.warns(UserWarning, match="far from"):
        again = saminv.invert(tmp_path / "grain.png", ["W+"], **settings, encoder=solution[0])
    assert again.stats["tau"].tolist() == [FAR_TAU], "a warm start knows what was found before"
    with pytest.warns(UserWarning, match="far from"):
        asked = saminv.invert(tmp_path / "grain.png", ["W+"], DEFAULT_TAU, **settings)
    assert asked.stats["tau"].tolist() == [DEFAULT_TAU], "what is asked for is done"


@pytest.mark.parametrize(
    ("spaces", "settings", "rates"),
    [
        (["W+", "F4"], {"steps": 300}, {}),
        (["W+", "F4"], {"steps": 1000}, {}),
        (["W+", "F4"], {"steps": 0}, {}),
        (["W+", "F4"], {"steps": 200}, {"W+": 0.1 * 1.5**1.5}),
        (["W+", "F4"], {"steps": 50}, {"W+": 0.3}),
        (["W+", "F4"], {"steps": 50, "rate": 0.1}, {}),
        (["W+", "F4"], {"steps": 50, "rates": {"W": 0.2}}, {"W": 0.2}),
        (["W+", "F4"], {"steps": 50, "rates": {"F": 0.2}}, {"W+": 0.3, "F": 0.2}),
        (["W+", "F4"], {"steps": 50, "formulation": "published"}, {"F": 0.1}),
        (["W+"], {"steps": 300}, {"W+": 0.2}),
        (["W+"], {"steps": 1000}, {"W+": 0.2}),
        (["W+"], {"steps": 200}, {"W+": 0.3}),
        (["W+"], {"steps": 300, "rate": 0.1}, {}),
        (["W+"], {"steps": 300, "rates": {"W+": 0.1}}, {}),
        (["W+", "P"], {"steps": 300}, {}),
    ],
)
def test_styles_go_faster_alone_and_in_short_runs(spaces, settings, rates):
    recipe = make_recipe(spaces, generator=toy_stylegan2(), metric="mse", segmenter="none", **settings)
    assert isinstance(recipe.descent, Adam) and recipe.descent.rate == 0.1
    found = {name: recipe.descent.rates.get(name, 0.1) for name in ("W", "W+", "F")}
    assert found == pytest.approx({"W": 0.1, "W+": 0.1, "F": 1.0, **rates})


def test_runs_from_an_encoder_go_along_principal_axes_and_no_faster_if_short():
    settings = {"generator": toy_stylegan2(), "metric": "mse", "segmenter": "none", "steps": 50}
    network = {"widths": (4, 4, 4, 4), "blocks": (1, 1, 1, 1)}
    encoder = make_encoder("feature-style", settings["generator"], **network)
    for spaces, rate in ((["W+"], 0.2), (["W+", "F4"], 0.1)):
        cold, warm = (make_recipe(spaces, **settings, **start).descent for start in ({}, {"encoder": encoder}))
        assert cold.rates["W+"] == 0.3 and not cold.principal
        assert warm.rates["W+"] == rate and warm.principal


@pytest.mark.parametrize("solver", ["auto", "adam", "coarse-to-fine", "lbfgs", "adam-lbfgs", LBFGS(memory=3)])
def test_solvers_by_name(quick, pictures, solver):
    one, other = (quick(pictures[:1], ["W+"], solver=name, steps=12) for name in (solver, "adam"))
    start = quick(pictures[:1], ["W+"], steps=0)
    assert (one.stats["loss"] < start.stats["loss"]).all()
    assert torch.equal(one.image, other.image) == (solver in ("auto", "adam"))


def test_solvers_that_are_none(quick, pictures):
    with pytest.raises(InputError, match="solver='sgd' is unknown; use 'auto', 'adam', 'coarse-to-fine', 'lbfgs'"):
        quick(pictures, ["W+"], solver="sgd")
    with pytest.raises(InputError, match="rate and rates are Adam's; solver='lbfgs' has none"):
        quick(pictures, ["W+"], solver="lbfgs", rate=0.1)
