"""Inversions that start from an encoder: it says the start, the solver improves on it."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers import assert_close
from test_encoders import SETTINGS, encoded, tiny
from toys import halves, same_latents, toy_stylegan2

import saminv
from saminv import CheckpointError, InputError, Solution, cli, images
from saminv._arguments import make_recipe
from saminv._recipe import FAR_FROM_DOMAIN
from saminv.encoders import ARCHITECTURES, ENCODERS, make_encoder, save_encoder
from saminv.optim.start import domain_distance, nearest_styles
from saminv.runs import run
from saminv.runs.folder import _signature
from saminv.spaces import SpaceOptions, resolve_spaces, warm_values

SPACES = {
    "gradual": ["W+"],
    "padinv": ["W+", "P"],
    "feature-style": ["W+", "FS"],
    "sam": ["W+", "F4", "F6"],
}
QUICK = {"metric": "mse", "segmenter": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def pictures(generator):
    return generator.synthesis(generator.mapping(generator.sample_z(3, seed=77))).clamp(-1, 1).contiguous()


def settings(architecture, generator, pictures, **more):
    """Arguments of an inversion in the encoder's spaces; those of SAM's share each picture out in bands."""
    regions = halves(generator, len(pictures), SPACES["sam"]) if architecture == "sam" else "auto"
    return {"spaces": SPACES[architecture], "generator": generator, "invertibility": regions, **QUICK, **more}


def plain(invert):
    """Without the warnings of pictures and spaces, which these tests are not about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return invert()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_start_is_what_the_encoder_says(generator, pictures, architecture):
    encoder = tiny(architecture, generator)
    given = settings(architecture, generator, pictures, encoder=encoder, steps=0)
    solution = plain(lambda: saminv.invert(pictures, **given))
    found = encoded(encoder, generator, pictures)
    assert list(solution.latents) == SPACES[architecture]
    for name, value in solution.latents.items():
        for key, tensor in value.items():
            said = found["FS5" if name == "FS" else name][key]
            assert torch.equal(tensor, said), f"{name} {key}"
    assert solution.stats["domain_distance"].shape == (3,)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_solver_improves_on_it(tmp_path, generator, pictures, architecture):
    encoder = tiny(architecture, generator)
    given = settings(architecture, generator, pictures, encoder=encoder)
    start, end = (plain(lambda n=n: saminv.invert(pictures, **given, steps=n)) for n in (0, 15))
    assert bool((end.stats["mse"] < start.stats["mse"]).all())
    again = Solution.load(end.save(tmp_path / "end.safetensors"), generator=generator)
    assert same_latents(again.latents, end.latents)
    assert_close(again.edit(torch.zeros(12)), end.image, 1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_equals_its_images_alone(pictures, architecture):
    generator = toy_stylegan2(torch.float64)
    encoder = tiny(architecture, generator)
    given = settings(architecture, generator, pictures, encoder=encoder, steps=3)
    together = plain(lambda: saminv.invert(pictures, **given))
    for row in range(len(pictures)):
        regions = given["invertibility"]
        alone_given = given | {"invertibility": regions if isinstance(regions, str) else regions.select(row)}
        alone = plain(lambda row=row, alone_given=alone_given: saminv.invert(pictures[row], **alone_given))
        for name, value in alone.latents.items():
            for key, tensor in value.items():
                assert_close(tensor, together.latents[name][key][row : row + 1], 1e-9, f"{name} {key}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_with_the_generator_of_the_demo(architecture):
    demo = saminv.load_generator("demo")
    sizes = {"widths": (8, 12, 16, 128), "blocks": (1, 1, 1, 1)} | (
        {} if architecture == "feature-style" else {"reduction": 4}
    )
    torch.manual_seed(0)
    encoder = make_encoder(architecture, demo, **sizes).freeze()
    scene = saminv.demo.sample_scenes(1, seed=11).images
    spaces = {**SPACES, "sam": list(demo.default_spaces)}[architecture]
    given = {"spaces": spaces, "encoder": encoder, "segmenter": "demo", "device": "cpu"}
    start, end = (plain(lambda n=n: saminv.invert(scene, **given, steps=n)) for n in (0, 4))
    assert bool((end.stats["mse"] < start.stats["mse"]).all())
    assert list(end.latents) == [space.name for space in resolve_spaces(spaces, demo)]


def test_a_space_of_another_name_starts_at_the_same_sites(generator, pictures):
    found = encoded(tiny("padinv", generator), generator, pictures)
    styles = found["W+"]["w"]

    def warm(*names):
        return warm_values(generator, resolve_spaces(names, generator, SpaceOptions()), styles, found)

    assert torch.equal(warm("W+", "P5")["P5"]["P5"], found["P"]["P5"])
    assert warm("W+", "F4") == {} and warm("W+", "P2") == {}
    # Of P2 nothing is known, so it starts where it would without an encoder.
    some = warm("W+", "P[2,5]")["P[2,5]"]
    assert torch.equal(some["P5"], found["P"]["P5"]) and float(some["P2"].abs().max()) == 0
    feature = encoded(tiny("feature-style", generator), generator, pictures)
    spaces = [resolve_spaces(["W+", name], generator) for name in ("FS", "FS5", "FS6", "F4")]
    values = [warm_values(generator, each, styles, feature) for each in spaces]
    assert torch.equal(values[0]["FS"]["feature"], feature["FS5"]["feature"])
    assert torch.equal(values[1]["FS5"]["feature"], feature["FS5"]["feature"])
    assert values[2] == values[3] == {}


def test_other_style_spaces_start_from_the_styles(generator, pictures):
    encoder = tiny("gradual", generator)
    given = settings("gradual", generator, pictures, encoder=encoder, steps=0) | {"spaces": ["W"]}
    solution = plain(lambda: saminv.invert(pictures, **given))
    other = plain(
        lambda: saminv.invert(pictures, **given | {"encoder": encoded(encoder, generator, pictures)["W+"]["w"]})
    )
    assert same_latents(solution.latents, other.latents)


def test_measured_invertibility_begins_with_everything_in_the_styles(generator, pictures):
    encoder = tiny("sam", generator)
    given = settings("sam", generator, pictures, encoder=encoder, steps=0) | {"invertibility": "measured"}
    solution = plain(lambda: saminv.invert(pictures, **given))
    assert float(solution.latents["F4"]["delta"].abs().max()) == 0
    given["steps"], given["tau"] = 30, 0.0
    later = plain(lambda: saminv.invert(pictures, **given))
    assert bool((later.stats["mse"] < solution.stats["mse"]).all()) and bool((later.regions.labels > 0).any())


# By name and by path.


@pytest.fixture()
def file(tmp_path, generator):
    return save_encoder(tiny("gradual", generator), tmp_path / "mine.safetensors")


def test_encoders_are_chosen_by_path_and_by_name(monkeypatch, generator, pictures, file):
    # Alone: the message lists all that there are, and which are bundled is not its test.
    monkeypatch.setattr(ENCODERS, "_entries", {})
    ENCODERS.add("tiny", lambda: tiny("gradual", generator))
    given = settings("gradual", generator, pictures, steps=0)
    expected = encoded(tiny("gradual", generator), generator, pictures)["W+"]["w"]
    for chosen in (file, str(file), "tiny"):
        solution = plain(lambda chosen=chosen: saminv.invert(pictures, **given, encoder=chosen))
        assert torch.equal(solution.latents["W+"]["w"], expected)
    with pytest.raises(InputError, match=r"use 'auto', 'nearest', 'mean', 'none', 'tiny', the file of an encoder"):
        saminv.invert(pictures, **given, encoder="large")


def test_none_is_the_mean(generator, pictures):
    given = settings("gradual", generator, pictures, steps=0)
    none, mean = (plain(lambda name=name: saminv.invert(pictures, **given, encoder=name)) for name in ("none", "mean"))
    assert same_latents(none.latents, mean.latents)
    assert_close(none.latents["W+"]["w"], generator.statistics().mean_w.float().expand(3, 8, -1), 1e-6)


def test_encoders_of_other_generators_are_refused_before_anything_is_read(generator, file):
    with pytest.raises(InputError, match=r"8 styles of 12 numbers .* this generator has 10 styles of 12 numbers"):
        saminv.invert("absent.png", generator=toy_stylegan2(resolution=64), encoder=file, **QUICK)
    with pytest.raises(CheckpointError, match=r"gone\.pt does not exist"):
        saminv.invert("absent.png", generator=generator, encoder="gone.pt", **QUICK)
    with pytest.raises(InputError, match="encoder=5 is unknown"):
        saminv.invert("absent.png", generator=generator, encoder=5, **QUICK)


def test_a_solution_is_no_encoder(tmp_path, generator, pictures):
    solution = plain(lambda: saminv.invert(pictures, **settings("gradual", generator, pictures, steps=0)))
    path = solution.save(tmp_path / "solution.safetensors")
    with pytest.raises(CheckpointError, match="no encoder that is known here"):
        saminv.invert(pictures, **settings("gradual", generator, pictures, encoder=path))


def test_how_far_a_picture_is_does_not_depend_on_the_start(generator, pictures):
    grain = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = torch.cat([pictures[:1], grain])
    recipe = make_recipe(["W+"], generator=generator, encoder=tiny("gradual", generator), **QUICK)
    _, expected = nearest_styles(generator, both, recipe.metric)
    found = domain_distance(generator, both)
    assert torch.equal(found, expected)
    assert (found > FAR_FROM_DOMAIN).tolist() == [False, True]
    with pytest.warns(UserWarning, match="far from what the generator makes"):
        saminv.invert(grain, ["W+"], generator=generator, encoder=recipe.encoder, steps=0, **QUICK)


def test_runs_take_encoders_and_know_them_apart(tmp_path, generator, pictures):
    images.save(tmp_path / "one.png", pictures[:1])
    encoder = tiny("gradual", generator)
    given = settings("gradual", generator, pictures, encoder=encoder, steps=0)
    report = plain(lambda: run([tmp_path / "one.png"], tmp_path / "out", **given, progress=False))
    assert (report.done, report.failed) == (1, {})
    signatures = [
        _signature(make_recipe(**given | {"encoder": each})) for each in (encoder, tiny("gradual", generator, seed=1))
    ]
    assert signatures[0] != signatures[1]
    assert signatures[0] == _signature(make_recipe(**given))


def test_the_command_takes_files_of_encoders(tmp_path, monkeypatch, generator, pictures, capsys):
    from saminv.generators import save_generator

    weights = save_generator(generator, tmp_path / "toy.safetensors")
    file = save_encoder(tiny("gradual", generator), tmp_path / "mine.safetensors")
    images.save(tmp_path / "one.png", pictures[:1])
    words = f"invert {tmp_path / 'one.png'} --generator {weights} --encoder {file} --steps 0 --spaces W+ --metric mse "
    assert cli.main([*words.split(), "--segmenter", "none", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    solution = Solution.load(tmp_path / "out" / "one.safetensors", generator=generator)
    expected = tiny("gradual", generator).encode(images.load(tmp_path / "one.png").tensor, generator)["W+"]["w"]
    assert torch.equal(solution.latents["W+"]["w"], expected)
    words = words.replace(str(file), str(tmp_path / "gone.pt"))
    assert cli.main([*words.split(), "--out", str(tmp_path / "out")]) == 2
    assert "gone.pt does not exist" in capsys.readouterr().err


@pytest.mark.gpu
def test_encoders_follow_the_generator_to_its_device(generator, pictures):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    for architecture in SETTINGS:
        encoder = tiny(architecture, generator)
        given = settings(architecture, generator, pictures, encoder=encoder, steps=2) | {"device": "cuda"}
        if architecture == "sam":
            given["invertibility"] = given["invertibility"].to("cuda")
        solution = plain(lambda given=given: saminv.invert(pictures, **given))
        assert solution.image.device.type == "cuda" and next(encoder.parameters()).device.type == "cpu"
