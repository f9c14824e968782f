"""Encoders: the published ones number by number, their files, and their own shape for any generator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import GOLDEN_DIRS, assert_close, golden
from safetensors.torch import save_file
from toys import LinearGenerator, halves, toy_stylegan2

from saminv import CheckpointError, InputError, Regions
from saminv.checkpoints import stylegan2_from_rosinality
from saminv.encoders import (
    ARCHITECTURES,
    AbstractEncoder,
    FeatureStyleConfig,
    GradualConfig,
    PadInvConfig,
    SAMConfig,
    encoder_for,
    encoder_from_published,
    is_encoder_file,
    load_encoder,
    make_encoder,
    save_encoder,
)
from saminv.encoders._base import framed, resized
from saminv.encoders.published import published_layout, read_published

TINY = {"widths": (4, 6, 8, 12), "blocks": (1, 1, 1, 1)}
SETTINGS = {
    "gradual": TINY | {"reduction": 2},
    "padinv": TINY | {"reduction": 2},
    "feature-style": TINY,
    "sam": TINY | {"reduction": 2, "decoder": 6, "spaces": ("W+", "F4", "F6")},
}
TYPES = {"e4e": "Encoder4Editing", "psp": "GradualStyleEncoder"}


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def pictures(generator):
    return generator.synthesis(generator.mapping(generator.sample_z(3, seed=77))).clamp(-1, 1).contiguous()


def tiny(architecture, generator, seed=0, **settings) -> AbstractEncoder:
    """A random encoder, whose normalisations have seen noise and whose last layers are not zero."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        encoder = make_encoder(architecture, generator, **{**SETTINGS[architecture], **settings})
        for name, tensor in encoder.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(std=0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif "last" in name:
                tensor.normal_(std=0.1)
    return encoder.freeze()


def encoded(encoder, generator, pictures):
    """What an encoder says, with regions of slanted bands."""
    regions = halves(generator, len(pictures), ["W+", "F4", "F6"])
    with torch.no_grad():
        return encoder.encode(pictures, generator, regions)


# The published code.


@pytest.fixture(scope="module", params=["e4e", "psp"])
def gradual(request):
    """Golden arrays of one of them under their prefix, and the encoder."""
    data, kind = golden("e4e_psp_tiny"), request.param
    arrays = {**data.under(f"{kind}/state/encoder."), "latent_avg": data[f"{kind}/in/latent_avg"]}
    settings = {"encoder_type": TYPES[kind], "stylegan_size": 64}
    return data, kind, encoder_from_published(arrays, settings, kind)


def test_codes_of_psp_and_e4e_are_the_published_ones(gradual):
    data, kind, encoder = gradual
    assert_close(encoder(data[f"{kind}/in/image"]), data[f"{kind}/out/codes"], 2e-5)


def test_their_styles_and_what_they_render_to_are_the_published_ones(gradual):
    data, kind, encoder = gradual
    decoder = stylegan2_from_rosinality(data.under(f"{kind}/state/decoder."))
    found = encoder.encode(data[f"{kind}/in/image"], decoder)
    assert set(found) == {"W+"}
    assert_close(found["W+"]["w"], data[f"{kind}/out/latents"], 2e-5)
    assert_close(decoder.synthesis(found["W+"]["w"]), data[f"{kind}/out/img"], 2e-5)


@pytest.fixture(scope="module")
def padinv():
    data = golden("padinv_encoder")
    return data, encoder_from_published(data.under("state/"), {}, "PadInv")


def test_styles_and_padding_maps_of_padinv_are_the_published_ones(padinv):
    data, encoder = padinv
    codes, maps = encoder(data["in/image"])
    assert_close(codes + data["in/avg_latent"], data["out/style_latents"], 2e-5)
    assert list(maps) == [0, 1, 3, 5, 7]
    for number, found in maps.items():
        assert_close(found, data[f"out/padding_map_p{number}"], 2e-5, f"P{number}")


def test_features_of_padinv_are_the_published_ones(padinv):
    data, encoder = padinv
    _, levels = encoder.branch(data["in/image"])
    for number, level in enumerate(levels):
        assert_close(level, data[f"mid/fpn_level{number}"], 2e-5, f"level {number}")
    assert_close(encoder.extractor(levels[1]), data["mid/padding_extractor"], 2e-5)
    assert_close(encoder.branch.trunk(data["in/image"])[-1], data["mid/stage3"], 2e-5)


def test_padinv_without_padding_is_its_own_baseline(padinv):
    data, encoder = padinv
    state = {name: x for name, x in data.under("state/").items() if not name.startswith("padding_")}
    plain = encoder_from_published(state, {}, "PadInv without padding")
    codes, maps = plain(data["in/image"])
    assert maps == {} and plain.provides == {"W+"}
    assert torch.equal(codes, encoder(data["in/image"])[0])


def test_codes_and_features_of_feature_style_are_the_published_ones():
    data = golden("fse_encoder")
    encoder = encoder_from_published(data.under("state/"), {}, "Feature-Style")
    codes, feature = encoder(data["in/image"])
    assert_close(codes, data["out/latents"], 2e-5)
    assert_close(feature, data["out/content"], 2e-5)
    x = encoder.conv(data["in/image"])
    for number in range(1, 5):
        x = encoder.get_submodule(f"block_{number}")(x)
        key = f"mid/block_{number}_pool3x3"
        shown = F.adaptive_avg_pool2d(x, 3) if key in data else x
        assert_close(shown, data[key if key in data else f"mid/block_{number}"], 2e-5, key)


FULL = {
    "e4e_cars_512": ({"encoder_type": "Encoder4Editing", "dataset_type": "cars_encode"}, 16, (192, 256), {"W+"}),
    "e4e_ffhq_1024": ({"encoder_type": "Encoder4Editing", "stylegan_size": 1024}, 18, (256, 256), {"W+"}),
    "psp_ffhq_1024": ({"encoder_type": "GradualStyleEncoder"}, 18, (256, 256), {"W+"}),
    "fse_encoder_full": ({}, 18, (256, 256), {"W+", "FS5"}),
    "padinv_encoder_ffhq": ({}, 18, (256, 256), {"W+", "P"}),
}


@pytest.mark.parametrize("name", FULL)
def test_networks_of_full_size_have_the_published_arrays(name):
    files = [path for folder in GOLDEN_DIRS if (path := folder / "keys" / f"{name}.json").is_file()]
    if not files:
        pytest.skip(f"keys/{name}.json is neither in tests/golden nor in ../shared/golden")
    settings, num_styles, image_size, provides = FULL[name]
    keys = json.loads(files[0].read_text())["keys"]
    # Without memory: a pSp encoder has a gigabyte of it.
    with torch.device("meta"):
        arrays = {key.removeprefix("encoder."): torch.empty(shape) for key, shape, _ in keys}
        arrays = {key: x for key, x in arrays.items() if not key.startswith("decoder.")}
        architecture, config, renamed = published_layout(arrays, settings, name)
        encoder = ARCHITECTURES.get(architecture)(config)
    state = {key: x.shape for key, x in encoder.state_dict().items() if "num_batches" not in key}
    assert {key: x.shape for key, x in renamed.items()} == state
    assert (config.num_styles, config.style_dim, config.image_size) == (num_styles, 512, image_size)
    assert encoder.provides == provides


# ReStyle.


def published_names(encoder) -> dict[str, torch.Tensor]:
    """The arrays of a gradual encoder as pSp, e4e and ReStyle name them."""
    blocks, resnet = encoder.config.all_blocks, encoder.config.trunk == "resnet"
    found = {}
    for name, tensor in encoder.state_dict().items():
        if name == "latent_avg":
            continue
        _, part, rest = name.split(".", 2)
        if part == "heads":
            found[f"styles.{rest}"] = tensor
        elif part == "pyramid":
            found[rest.replace("laterals.1", "latlayer1").replace("laterals.0", "latlayer2")] = tensor
        elif rest.startswith("stem"):
            stem, tail = rest.split(".", 2)[1:]
            found[f"{('conv1', 'bn1', 'relu')[int(stem)]}.{tail}" if resnet else f"input_layer.{stem}.{tail}"] = tensor
        else:
            _, stage, block, tail = rest.split(".", 3)
            found[f"body.{sum(blocks[: int(stage)]) + int(block)}.{tail}"] = tensor
    return found


RESTYLE = {
    "BackboneEncoder": {"trunk": "ir-se", "pyramid": False, "reduction": 2},
    "ProgressiveBackboneEncoder": {"trunk": "ir-se", "pyramid": False, "reduction": 2, "deltas": True},
    "ResNetBackboneEncoder": {"trunk": "resnet", "pyramid": False},
    "ResNetProgressiveBackboneEncoder": {"trunk": "resnet", "pyramid": False, "deltas": True},
    "ResNetGradualStyleEncoder": {"trunk": "resnet"},
    "GradualStyleEncoder": {"trunk": "ir-se", "reduction": 2},
}


@pytest.mark.parametrize("encoder_type", RESTYLE)
def test_files_of_restyle_load(generator, pictures, encoder_type):
    given = {"widths": TINY["widths"], "blocks": (), "iterations": 2, **RESTYLE[encoder_type]}
    encoder = tiny("gradual", generator, **given)
    stated = {"encoder_type": encoder_type, "n_iters_per_batch": 2}
    again = encoder_from_published(published_names(encoder), stated, encoder_type)
    assert again.config.deltas == encoder.config.deltas and again.config.levels[0] == encoder.config.levels[0]
    for key in ("W+",):
        assert torch.equal(
            encoded(again, generator, pictures)[key]["w"], encoded(encoder, generator, pictures)[key]["w"]
        )


def test_restyle_looks_at_what_its_last_guess_renders_to(generator, pictures):
    encoder = tiny("gradual", generator, iterations=3)
    styles = generator.w_avg.expand(3, 8, -1)
    guesses = list(encoder.guesses(pictures, generator))
    assert len(guesses) == 3
    for guess in guesses:
        styles = styles + encoder(torch.cat([pictures, generator.synthesis(styles)], dim=1))
        assert_close(guess, styles, 1e-6)
    assert_close(encoder.encode(pictures, generator)["W+"]["w"], styles, 1e-6)


def test_resnet_is_that_of_torchvision():
    models = pytest.importorskip("torchvision.models")
    from saminv.encoders._trunk import RESNET_BLOCKS, Trunk

    torch.manual_seed(0)
    network = models.resnet34(weights=None).eval()
    trunk = Trunk(3, blocks=RESNET_BLOCKS, resnet=True).eval()
    for stage in range(4):
        trunk.stages[stage].load_state_dict(network.get_submodule(f"layer{stage + 1}").state_dict())
    x = torch.randn(1, 3, 32, 32)
    expected = trunk.stem(x)
    for stage, found in enumerate(trunk(x), start=1):
        expected = network.get_submodule(f"layer{stage}")(expected)
        assert_close(found.detach(), expected.detach(), 1e-6, f"stage {stage}")


# What an encoder says.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_fit_the_spaces_of_the_generator(generator, pictures, architecture):
    from saminv.spaces import SpaceOptions, make_space

    encoder = tiny(architecture, generator)
    found = encoded(encoder, generator, pictures)
    assert found.keys() == encoder.provides
    for name, value in found.items():
        start = make_space(name, generator, SpaceOptions()).init(generator, found["W+"]["w"])
        assert {key: x.shape for key, x in value.items()} == {key: x.shape for key, x in start.items()}
        assert all(bool(x.isfinite().all()) for x in value.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_picture_does_not_depend_on_those_beside_it(pictures, architecture):
    generator = toy_stylegan2(torch.float64)
    encoder = tiny(architecture, generator).double()
    regions = halves(generator, 3, ["W+", "F4", "F6"])
    with torch.no_grad():
        together = encoder.encode(pictures.double(), generator, regions)
        for row in range(3):
            alone = encoder.encode(pictures[row : row + 1].double(), generator, regions.select(row))
            for name, value in alone.items():
                for key, tensor in value.items():
                    assert_close(tensor, together[name][key][row : row + 1], 1e-12, f"{name} {key}")


POOLED = [("gradual", {"pooled": 2}), ("padinv", {"pooled": 2}), ("padinv", {"pooled": 2, "paddings": ()})]
POOLED += [("sam", {"pooled": 2})]


@pytest.mark.parametrize(("architecture", "settings"), [*((name, {}) for name in ARCHITECTURES), *POOLED])
def test_gradients_reach_every_weight(generator, pictures, architecture, settings):
    encoder = tiny(architecture, generator, **settings).train().requires_grad_()
    found = encoder.encode(pictures, generator, halves(generator, 3, ["W+", "F4", "F6"]))
    sum(x.square().sum() for value in found.values() for x in value.values()).backward()
    idle = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    assert not idle


def test_paddings_are_the_middle_of_their_maps(generator, pictures):
    encoder = tiny("padinv", generator)
    _, maps = encoder(pictures)
    found = encoder.encode(pictures, generator)["P"]
    assert torch.equal(found["P0"], maps[0][:, :, 15:19, 15:19])
    # The ring around 8 x 8: the row above from its left corner, and the row below to its right corner.
    assert torch.equal(found["P3"][:, :, :10], maps[3][:, :, 12, 12:22])
    assert torch.equal(found["P3"][:, :, -10:], maps[3][:, :, 21, 12:22])


def test_other_paddings_make_another_space(generator, pictures):
    encoder = tiny("padinv", generator, paddings=(1, 5))
    assert encoder.provides == {"W+", "P[1,5]"}
    assert encoder.encode(pictures, generator)["P[1,5]"].keys() == {"P1", "P5"}


def test_sam_sees_the_regions_and_says_nothing_outside_of_them(generator, pictures):
    encoder = tiny("sam", generator)
    regions = halves(generator, 3, ["W+", "F4"])
    found = encoder.encode(pictures, generator, regions)
    assert found.keys() == {"W+", "F4"}
    mask = regions.mask("F4", generator.site("F4")) > 0
    assert bool((found["F4"]["delta"] == 0)[~mask.expand_as(found["F4"]["delta"])].all())
    assert bool((found["F4"]["delta"] != 0).any())
    whole = Regions.uniform(3, generator.image_size, ["W+", "F4"], "W+")
    other = encoder.encode(pictures, generator, whole)
    assert float(other["F4"]["delta"].abs().max()) == 0
    assert not torch.equal(other["W+"]["w"], found["W+"]["w"])


def test_planes_of_the_map_are_the_regions(generator):
    encoder = tiny("sam", generator)
    regions = halves(generator, 2, ["W+", "F6"])
    planes = encoder.planes(regions)
    assert torch.equal(planes[:, 0], (regions.labels == 0).float())
    assert float(planes[:, 1].abs().max()) == 0
    assert torch.equal(planes[:, 2], (regions.labels == 1).float())


def test_untrained_sam_changes_no_feature(generator, pictures):
    encoder = make_encoder("sam", generator, **SETTINGS["sam"]).eval()
    found = encoded(encoder, generator, pictures)
    assert all(float(found[name]["delta"].abs().max()) == 0 for name in ("F4", "F6"))


def test_changes_come_in_units_of_the_deviation(generator, pictures):
    encoder = tiny("sam", generator)
    before = encoded(encoder, generator, pictures)["F6"]["delta"]
    encoder.fit_deviations(generator)
    after = encoded(encoder, generator, pictures)["F6"]["delta"]
    assert_close(after, before * generator.feature_deviation("F6")[:, None, None], 1e-6)


def test_codes_are_added_to_the_mean_of_the_file_or_of_the_generator(generator, pictures):
    plain = tiny("gradual", generator)
    codes = plain(pictures)
    assert_close(plain.encode(pictures, generator)["W+"]["w"], codes + generator.w_avg, 1e-6)
    arrays = {**published_names(tiny("gradual", generator, blocks=())), "latent_avg": torch.full((1, 12), 2.0)}
    own = encoder_from_published(arrays, {"encoder_type": "GradualStyleEncoder"}, "own")
    assert_close(own.encode(pictures, generator)["W+"]["w"], own(pictures) + 2, 1e-6)
    linear = LinearGenerator()
    found = make_encoder("gradual", linear, **SETTINGS["gradual"]).mean_styles(linear)
    assert_close(found, linear.statistics().mean_w.float().expand(3, -1), 1e-6)


# Sizes of pictures.


def test_square_encoders_see_the_whole_canvas():
    image = torch.rand(1, 3, 24, 32)
    seen = framed(image, (256, 256))
    assert seen.shape[2:] == (32, 32)
    assert torch.equal(seen[:, :, 4:28], image)
    assert bool((seen[:, :, :4] == -1).all()) and bool((seen[:, :, 28:] == -1).all())
    assert framed(image, (192, 256)) is not seen and torch.equal(framed(image, (192, 256)), image)


def test_encoders_of_another_shape_see_the_middle_of_the_canvas():
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(framed(image, (192, 256)), image[:, :, 4:28])


def test_pictures_are_made_smaller_as_pillow_does_it():
    import numpy as np
    from PIL import Image

    image = torch.rand(1, 1, 40, 40)
    pillow = Image.fromarray(image[0, 0].numpy(), mode="F").resize((16, 16), Image.Resampling.BILINEAR)
    assert_close(resized(image, (16, 16))[0, 0], torch.from_numpy(np.array(pillow)), 1e-5)


def test_feature_style_halves_pictures_as_published(generator):
    encoder = tiny("feature-style", generator)
    image = torch.rand(1, 3, 512, 512)
    once = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
    assert_close(encoder.see(image), F.interpolate(once, scale_factor=0.5, mode="bilinear", align_corners=False), 1e-6)
    assert encoder.see(torch.rand(1, 3, 24, 24)).shape[2:] == (128, 128)


def test_feature_codes_of_any_size(pictures):
    # The features of some generators have sides that no stride leads to.
    generator = LinearGenerator(num_styles=6, side=9)
    encoder = tiny("feature-style", generator)
    found = encoder.encode(F.interpolate(pictures, (9, 9)), generator)["FS5"]["feature"]
    assert found.shape == (3, 3, 9, 9) and bool(found.isfinite().all())


# Files.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("half", [False, True])
def test_files_bring_the_encoder_back(tmp_path, generator, pictures, architecture, half):
    encoder = tiny(architecture, generator)
    path = save_encoder(encoder, tmp_path / "mine.safetensors", {"note": "tiny"}, half=half)
    assert is_encoder_file(path)
    again = load_encoder(path)
    assert (again.name, again.config, again.architecture) == ("mine", encoder.config, architecture)
    assert not again.training and not any(weight.requires_grad for weight in again.parameters())
    before, after = (encoded(each, generator, pictures) for each in (encoder, again))
    for name, value in before.items():
        for key, tensor in value.items():
            assert_close(after[name][key], tensor, 2e-2 if half else 1e-7, f"{name} {key}")


def hammer_names(encoder) -> dict[str, torch.Tensor]:
    """The arrays of a PadInv encoder as its authors name them."""
    parts = {
        "branch.trunk.stem": "input_layer",
        "branch.trunk.stages": "backbone_stages",
        "branch.pyramid.laterals": "fpn.lateral_layers",
        "branch.heads": "latent_heads",
        "extractor": "padding_extractor",
    } | {f"paddings.{2 * k + 1}": f"padding_modulation_heads.{k}" for k in range(4)}
    found = {}
    for name, tensor in encoder.state_dict().items():
        ours = next(part for part in parts if name.startswith(f"{part}."))
        found[parts[ours] + name.removeprefix(ours)] = tensor
    return found


def published_file(folder: Path, kind: str, generator) -> tuple[Path, AbstractEncoder]:
    """A file in a published format, and the encoder that it holds."""
    mean = torch.randn(1, 12)
    if kind == "psp":
        encoder = tiny("gradual", generator, blocks=())
        state = {f"encoder.{key}": x for key, x in published_names(encoder).items()}
        content = {
            "state_dict": {**state, "decoder.input.input": torch.zeros(1, 12, 4, 4)},
            "opts": {"encoder_type": "GradualStyleEncoder", "output_size": 32, "learn_in_w": False, "device": "cuda:0"},
            "latent_avg": mean.expand(8, -1),
        }
    elif kind == "padinv":
        encoder = tiny("padinv", generator, level=1)
        content = {
            "models": {"encoder": hammer_names(encoder), "generator_smooth": {"w_avg": mean[0]}},
            "optimizers": {},
        }
    else:
        encoder = tiny("feature-style", generator)
        state = encoder.state_dict()
        content = {"n_epoch": 3, "enc_state_dict": state} if kind == "fse checkpoint" else state
    path = folder / f"{kind}.pt"
    torch.save(content, path)
    own = "fse" not in kind
    encoder.config = replace(encoder.config, own_mean=own)
    if own:
        encoder.register_buffer("latent_avg", mean.expand(8, -1).clone())
    return path, encoder


@pytest.mark.parametrize("kind", ["psp", "padinv", "fse", "fse checkpoint"])
def test_published_files_load(tmp_path, generator, pictures, kind):
    path, expected = published_file(tmp_path, kind, generator)
    # The arrays of a Feature-Style encoder tell neither.
    settings = {"stride": 1, "image_size": (128, 128)} if "fse" in kind else {}
    assert not is_encoder_file(path)
    found = load_encoder(path, **settings)
    before, after = (encoded(each, generator, pictures) for each in (expected, found))
    assert before.keys() == after.keys()
    for name, value in before.items():
        for key, tensor in value.items():
            assert torch.equal(after[name][key], tensor), f"{name} {key}"


def test_arrays_as_safetensors_need_the_type_beside_them(tmp_path, generator):
    encoder = tiny("gradual", generator, blocks=())
    path = tmp_path / "e4e.safetensors"
    save_file({key: x.clone() for key, x in published_names(encoder).items()}, path)
    with pytest.raises(CheckpointError, match=r"do not tell pSp's encoders from e4e's.*pass encoder_type"):
        load_encoder(path)
    assert load_encoder(path, encoder_type="Encoder4Editing").config.deltas


# What does not fit.


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def damaged(folder: Path, generator) -> dict[str, tuple[Path, str]]:
    """Files that hold no encoder, with what is said of them."""
    whole = published_names(tiny("gradual", generator, blocks=()))
    stated = {"encoder_type": "GradualStyleEncoder"}

    def wrapped(name: str, arrays: dict, **settings) -> Path:
        state = {f"encoder.{key}": x for key, x in arrays.items()}
        torch.save({"state_dict": state, "opts": {**stated, **settings}}, folder / name)
        return folder / name

    def without(*names: str) -> dict:
        return {key: x for key, x in whole.items() if key not in names}

    last, first = "styles.7.linear.bias", "input_layer.0.weight"
    (folder / "page.pt").write_text("<html>not found</html>")
    torch.save({"state_dict": {"decoder.x": torch.zeros(1)}}, folder / "decoder.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"fc.weight": torch.zeros(2, 2)}, folder / "other.pt")
    torch.save({**stated, "state_dict": Touch(folder / "ran")}, folder / "code.pt")
    ours = save_encoder(tiny("gradual", generator), folder / "ours.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(ours[: len(ours) // 2])
    return {
        "absent": (folder / "absent.pt", "does not exist"),
        "page": (folder / "page.pt", "damaged, or holds more than plain arrays"),
        "cut": (folder / "cut.safetensors", "cannot be read as weights"),
        "decoder alone": (folder / "decoder.pt", "no arrays of an encoder; it has: decoder.x"),
        "list": (folder / "list.pt", "is no encoder, but a list"),
        "other network": (folder / "other.pt", "no encoder that is known here .it has fc.weight"),
        "code": (folder / "code.pt", "holds more than plain arrays"),
        "missing array": (wrapped("missing.pt", without(last)), "bias should be .12., found no such array"),
        "missing beginning": (wrapped("start.pt", without(first)), f"'{first}' is missing"),
        "extra array": (wrapped("extra.pt", {**whole, "more.weight": torch.zeros(1)}), "unknown array more.weight"),
        "other shape": (wrapped("shape.pt", {**whole, last: torch.zeros(3)}), "should be .12., found .3."),
        "not finite": (wrapped("nan.pt", {**whole, last: torch.full((12,), torch.nan)}), "infinite or not a number"),
        "other type": (wrapped("type.pt", whole, encoder_type="Mine"), "encoder_type='Mine'"),
        "one vector": (
            wrapped("single.pt", whole, encoder_type="BackboneEncoderUsingLastLayerIntoW"),
            "LastLayerIntoW reads all styles off one vector; those that load: GradualStyleEncoder",
        ),
        "sketches": (
            wrapped("sketch.pt", {**whole, first: torch.zeros(4, 1, 3, 3)}),
            "1 channels; encoders of sketches",
        ),
    }


CASES = [
    "absent",
    "page",
    "cut",
    "decoder alone",
    "list",
    "other network",
    "code",
    "missing array",
    "missing beginning",
    "extra array",
    "other shape",
    "not finite",
    "other type",
    "one vector",
    "sketches",
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory, generator):
    return damaged(tmp_path_factory.mktemp("broken"), generator)


@pytest.mark.parametrize("case", CASES)
def test_files_that_hold_no_encoder(broken, case):
    path, words = broken[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        load_encoder(path)
    assert path.name in str(caught.value)
    assert not (path.parent / "ran").exists()


def test_every_damaged_file_is_tried(broken):
    assert set(broken) == set(CASES)


def test_names_that_nobody_has():
    with pytest.raises(InputError, match=r"Unknown encoder 'e4e'. Known:"):
        load_encoder("e4e")


def test_encoders_of_other_generators_say_both(generator):
    # Another resolution has another number of styles too.
    larger = toy_stylegan2(resolution=64)
    with pytest.raises(InputError, match="8 styles of 12 numbers and pictures of 32 pixels; this generator has 10 "):
        tiny("gradual", generator).check(larger)
    wide = toy_stylegan2(w_dim=16, z_dim=16)
    with pytest.raises(InputError, match=r"8 styles of 12 numbers .*; this generator has 8 styles of 16 numbers"):
        tiny("gradual", generator).check(wide)
    other = toy_stylegan2(seed=1)
    with pytest.raises(InputError, match=r"trained for another generator: its fingerprint is .*, this generator's"):
        tiny("gradual", generator).check(other)
    tiny("gradual", generator, fingerprint="").check(other)


def test_published_encoders_of_another_resolution_say_both(generator):
    arrays = published_names(tiny("gradual", generator, blocks=()))
    stated = {"encoder_type": "GradualStyleEncoder", "stylegan_size": 1024}
    encoder = encoder_from_published(arrays, stated, "e4e")
    with pytest.raises(InputError, match=r"pictures of 1024 pixels; this generator has .* pictures of 32 pixels"):
        encoder.check(generator)


def test_features_and_paddings_of_another_shape_say_both(generator):
    narrow = toy_stylegan2(channel_max=8)
    with pytest.raises(InputError, match=r"feature code \[12, 16, 16\] .*F4; this generator has \[8, 16, 16\]"):
        tiny("feature-style", generator, fingerprint="").check(narrow)
    with pytest.raises(InputError, match=r"P0 of 12 channels on maps of 34 x 34; this generator needs \[8, 4, 4\]"):
        tiny("padinv", generator, fingerprint="").check(narrow)
    with pytest.raises(InputError, match=r"change \[12, 16, 16\] of F4; this generator has \[8, 16, 16\]"):
        tiny("sam", generator, fingerprint="").check(narrow)


def test_generators_without_padding_take_no_such_encoder():
    linear = LinearGenerator(num_styles=6)
    encoder = make_encoder("padinv", linear, **SETTINGS["padinv"])
    assert encoder.provides == {"W+"}
    with pytest.raises(InputError, match="gives the padding P0, which this generator does not have"):
        config = replace(encoder.config, paddings=(0,), channels=(12,))
        ARCHITECTURES.get("padinv")(config).check(linear)
    with pytest.raises(InputError, match="no site 'P3'"):
        make_encoder("padinv", linear, paddings=(3,))


IMPOSSIBLE = {
    "side": (lambda: GradualConfig(8, 12, image_size=(48, 48)), "power of two from 32"),
    "no styles": (lambda: GradualConfig(0, 12), "1 to 1000 styles of at least one"),
    "trunk": (lambda: GradualConfig(8, 12, trunk="vgg"), "trunk must be one of"),
    "iterations": (lambda: GradualConfig(8, 12, iterations=-1), "iterations must be"),
    "stages": (lambda: GradualConfig(8, 12, widths=(8, 8)), "four stages"),
    "narrow": (lambda: GradualConfig(8, 12, widths=(8, 8, 8, 8)), r"from reduction \(16\) up"),
    "levels": (lambda: GradualConfig(8, 12, per_level=(3, 4, 4)), "share 8 styles out"),
    "no pyramid": (lambda: GradualConfig(8, 12, pyramid=False, per_level=(3, 4, 1)), "among the levels that there"),
    "paddings": (lambda: PadInvConfig(8, 12, paddings=(3, 1), channels=(4, 4)), "different numbers in order"),
    "constant": (lambda: PadInvConfig(8, 12, paddings=(0,), channels=(4,)), "must end with its 4 channels"),
    "sides": (lambda: PadInvConfig(8, 12, paddings=(0,), channels=(512,), sides=(4, 6)), "sides must be"),
    "layer": (lambda: FeatureStyleConfig(8, 12, layer=0), "from 1 up"),
    "no W+": (lambda: SAMConfig(8, 12, spaces=("F4",)), r"needs W\+"),
    "features": (lambda: SAMConfig(8, 12, spaces=("W+", "F4")), "one for each of F4"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_configurations_that_make_no_sense(case):
    make, words = IMPOSSIBLE[case]
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [1 << 60] * 4},
        {"widths": [8.5, 9, 9, 12]},
        {"widths": "wide"},
        {"blocks": [10**9, 1, 1, 1]},
        {"num_styles": 10**9},
        {"style_dim": None},
        {"colour": "red"},
    ],
    ids=str,
)
def test_files_whose_configuration_is_damaged(tmp_path, generator, change):
    encoder = tiny("gradual", generator)
    config = json.dumps({**json.loads(encoder.config.to_json()), **change})
    path = tmp_path / "damaged.safetensors"
    header = {"format": "saminv.encoder.1", "architecture": "gradual", "config": config}
    save_file({"x": torch.zeros(1)}, path, header)
    with pytest.raises(CheckpointError):
        load_encoder(path)


def test_settings_that_no_encoder_has(generator):
    with pytest.raises(InputError, match=r"no such setting.*depth"):
        make_encoder("gradual", generator, depth=3)
    with pytest.raises(InputError, match="Unknown architecture of encoders 'hyper'"):
        make_encoder("hyper", generator)


def test_sam_needs_regions_of_the_pictures(generator, pictures):
    encoder = tiny("sam", generator)
    with pytest.raises(InputError, match="takes the invertibility map too"):
        encoder.encode(pictures, generator)
    with pytest.raises(InputError, match="regions are for 2 pictures"):
        encoder.encode(pictures, generator, halves(generator, 2, ["W+", "F4"]))


def test_pictures_have_to_be_pictures(generator):
    with pytest.raises(InputError, match="image to encode"):
        tiny("gradual", generator).encode(torch.zeros(1, 1, 32, 32), generator)


def test_an_encoder_that_is_passed_in_stays_as_it_is(generator):
    encoder = make_encoder("gradual", generator, **SETTINGS["gradual"])
    double = encoder_for(encoder, toy_stylegan2(torch.float64))
    assert double is not encoder and next(double.parameters()).dtype == torch.float64 and not double.training
    assert encoder.training and next(encoder.parameters()).dtype == torch.float32
    frozen = encoder.freeze()
    assert encoder_for(frozen, generator) is frozen


def test_readers_leave_settings_and_mean_apart(tmp_path, generator):
    path, _ = published_file(tmp_path, "psp", generator)
    arrays, settings = read_published(path)
    assert settings["output_size"] == 32 and arrays["latent_avg"].shape == (8, 12)
    assert not any(name.startswith(("encoder.", "decoder.")) for name in arrays)


def test_paddings_are_read_off_the_level_of_the_largest_padded_feature():
    generator = toy_stylegan2(resolution=128, channel_max=12)
    settings = SETTINGS["padinv"]
    for side, level in ((256, 1), (128, 2), (64, 2), (512, 0)):
        assert PadInvConfig.level == 1
        assert make_encoder("padinv", generator, image_size=(side, side), **settings).config.level == level
    with pytest.raises(InputError, match="level must be from 0 to 2"):
        PadInvConfig(12, 12, level=3)


def test_anchored_paddings_are_changes_of_the_generators_own(generator, pictures):
    encoder = tiny("padinv", generator, anchored=True)
    assert encoder.config.anchored and encoder.config.sides == (4, 6, 10, 18, 34)
    _, maps = encoder(pictures)
    assert [tuple(found.shape[2:]) for found in maps.values()] == [(side, side) for side in encoder.config.sides]
    found = encoder.encode(pictures, generator)
    own = generator.synthesis(found["W+"]["w"], until="P0")["P0"]
    deviations = {k: torch.full_like(encoder.get_buffer(f"deviation{k}"), 2.0) for k in (0, 3)}
    encoder.load_state_dict({**encoder.state_dict(), **{f"deviation{k}": x for k, x in deviations.items()}})
    doubled = encoder.encode(pictures, generator)["P"]
    assert_close(found["P"]["P0"], own + maps[0], 1e-6)
    assert_close(doubled["P0"], own + 2 * maps[0], 1e-6)
    # The ring around 8 x 8 is the border of a map of 10 x 10.
    assert torch.equal(doubled["P3"][:, :, :10], 2 * maps[3][:, :, 0])
    # A training starts from the generator itself.
    encoder.fit_to(generator)
    assert torch.equal(encoder.deviation3, generator.padding_deviation("P3"))
    start = encoder.encode(pictures, generator)["P"]
    assert torch.equal(start["P0"], own) and not any(x.any() for name, x in start.items() if name != "P0")
    # The constant has a convolution of its own, so the network may have other widths than it.
    free = make_encoder("padinv", generator, **{**SETTINGS["padinv"], "widths": (4, 4, 8, 20)}, anchored=True)
    assert encoded(free.freeze(), generator, pictures)["P"]["P0"].shape == (3, 12, 4, 4)
    other = toy_stylegan2(resolution=64, channel_max=12)
    assert make_encoder("padinv", other, **SETTINGS["padinv"], anchored=True).config.sides == (4, 6, 10, 18, 34)


def test_styles_may_be_read_off_averages_of_all_stages(generator, pictures):
    for architecture in ("gradual", "padinv", "sam"):
        encoder = tiny(architecture, generator, pooled=2, head_width=5)
        branch = encoder.styles if architecture == "sam" else encoder.branch
        assert branch.shared.in_features == 4 * sum(encoder.config.widths) and branch.shared.out_features == 5
        regions = halves(generator, 3, list(encoder.config.spaces)) if architecture == "sam" else None
        seen = encoder.see(pictures)
        if regions is not None:
            seen = torch.cat([seen, encoder.planes(regions)], dim=1)
        grids = [torch.nn.functional.adaptive_avg_pool2d(stage, 2).flatten(1) for stage in branch.trunk(seen)]
        # By position inside each channel, the channels of the finest stage first.
        flat = torch.cat(grids, dim=1)
        codes = [head(branch.shared(flat)) for head in branch.heads]
        styles = encoder.encode(pictures, generator, regions)["W+"]["w"]
        assert_close(styles, torch.stack(codes, dim=1) + encoder.mean_styles(generator), 1e-6)
        with pytest.raises(InputError, match="pooled from 0 to 32"):
            tiny(architecture, generator, pooled=33)


def test_heads_may_be_narrower_than_styles(generator, pictures):
    for architecture in ("gradual", "padinv", "sam"):
        encoder = tiny(architecture, generator, head_width=5)
        wide = tiny(architecture, generator)
        count, other = (sum(x.numel() for x in e.parameters()) for e in (encoder, wide))
        assert count < other and encoded(encoder, generator, pictures)["W+"]["w"].shape == (3, 8, 12)
        with pytest.raises(InputError, match="head_width"):
            tiny(architecture, generator, head_width=-1)
