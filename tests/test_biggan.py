"""BigGAN-deep against arrays computed by the published code, its files, and what its styles say."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from helpers import GOLDEN_DIRS, Golden, assert_close, golden, relative_difference
from toys import toy_biggan_deep

import saminv
from saminv import CheckpointError, InputError
from saminv.checkpoints import biggan_from_huggingface
from saminv.generators import BigGANDeep, BigGANDeepConfig, save_generator
from saminv.generators.biggan_deep import BLOCKS, Rows
from saminv.sites import Add, Replace

TOLERANCE = 2e-4
PICTURES = ("onehot_t0.4", "onehot_t0.433", "onehot_t0.7", "onehot_t1.0", "onehot_t0.013", "soft_t0.5")
AMPLIFIED = "onehot_t0.013"
"""Nothing normalises full noise there: logits of the attention reach 800, and float32 leaves fewer digits."""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def data() -> Golden:
    return golden("biggan")


@pytest.fixture(scope="module")
def published(data) -> BigGANDeep:
    return biggan_from_huggingface(data.under("state/"), data.meta["config"])


@pytest.fixture(scope="module")
def exact(data) -> BigGANDeep:
    return biggan_from_huggingface(data.under("state/"), data.meta["config"]).double()


@pytest.fixture(scope="module")
def tiny() -> BigGANDeep:
    return toy_biggan_deep()


def inputs(data: Golden, name: str):
    """Noise, label and truncation of a picture."""
    kind, truncation = name.split("_t")
    return data["in/z"], data[f"in/class_{kind}"], float(truncation)


@pytest.mark.parametrize("kind", ["onehot", "soft"])
def test_embeddings_match(data, published, kind):
    styles = published.mapping(data["in/z"], data[f"in/class_{kind}"])
    for slot in published.synthesis(styles, until="class")["class"].unbind(dim=1):
        assert_close(slot, data[f"embed/{kind}"], TOLERANCE)


def test_every_layer_matches(data, published):
    z, label, truncation = inputs(data, "onehot_t0.4")
    styles = published.mapping(z, label, truncation)
    names = list(published.feature_sites)
    found = published.synthesis(styles, until=names)
    # The published list counts the attention too.
    attention = published.config.attention
    assert data.meta["layer_types"][attention] == "SelfAttn"
    for layer, name in enumerate(names):
        assert_close(found[name][:1], data[f"layer/{layer + (layer >= attention)}"], TOLERANCE, name)
    attended = published.attention(found[f"F{attention - 1}"])
    assert_close(attended[:1], data[f"layer/{attention}"], TOLERANCE, "attention")
    condition = torch.cat([z, data["embed/onehot"]], dim=1)
    assert_close(published.first(condition), data["layer/gen_z"], TOLERANCE, "gen_z")
    rows = Rows.of(styles[..., -1], 51)
    normalised = published.norm.normalised(found[names[-1]], condition, rows.slot(-1))
    assert_close(normalised, data["layer/final_bn"], TOLERANCE, "final norm")
    assert_close(published.torgb(normalised.relu()), data["layer/conv_to_rgb"][:, :3], TOLERANCE, "to RGB")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_match(data, published, exact, name):
    z, label, truncation = inputs(data, name)
    expected = data[f"img/{name}"]
    got = published.synthesis(published.mapping(z, label, truncation))
    if name == AMPLIFIED:
        precise = exact.synthesis(exact.mapping(z.double(), label.double(), truncation))
        rounding = relative_difference(expected, precise)
        assert rounding < 1e-3 and relative_difference(got, precise) < 2 * rounding
    else:
        assert_close(got, expected, TOLERANCE)


def test_truncation_may_be_said_in_either_place(data, published):
    z, label, truncation = inputs(data, "onehot_t0.433")
    expected = data["img/onehot_t0.433"]
    full = published.mapping(z, label)
    truncated = published.mapping(z, label, truncation)
    assert_close(published.synthesis(full, truncation=truncation), expected, TOLERANCE)
    assert_close(published.synthesis(truncated, truncation=truncation), expected, TOLERANCE)
    assert_close(published.synthesis(truncated, truncation=0.9), expected, TOLERANCE)
    assert_close(published(z, label, truncation), expected, TOLERANCE)
    mixed = published.synthesis(torch.cat([full[:1], truncated[1:]]))
    assert_close(mixed, torch.cat([data["img/onehot_t1.0"][:1], expected[1:]]), TOLERANCE, "a truncation per image")


def test_effective_weights_match(data, published):
    norm = published.blocks[0].norms[0].condition.weight
    for name, got in (
        ("gen_z", published.first.weight),
        ("layers.0.conv_1", published.blocks[0].convs[1].weight),
        ("layers.0.bn_0.scale", norm[: len(norm) // 2]),
        ("conv_to_rgb", published.torgb.weight),
    ):
        assert_close(got, data[f"effective_weight/generator.{name}"][: len(got)], 1e-5, name)


@pytest.mark.parametrize("truncation", [0.0, 0.013, 0.02, 0.433, 0.58, 0.7, 0.9, 0.99, 1.0])
def test_rows_of_a_truncation_are_those_of_the_published_rule(truncation):
    """Reversed between rows, and a row at multiples of 0.02, or the one before it (0.58), though styles are float32."""
    table = torch.randn(51, 3, dtype=torch.float64)
    share, first = math.modf(truncation / 0.02)
    first = int(first)
    expected = table[first] if share == 0 else table[first] * share + table[first + 1] * (1 - share)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        rows = Rows.of(torch.full((2, 4), truncation, dtype=dtype), 51).slot(3)
        for row in rows.of_table(table):
            assert_close(row, expected, tolerance)


def test_a_row_depends_on_its_own_styles_alone(exact, data):
    z, label, _ = inputs(data, "onehot_t0.4")
    styles = exact.mapping(z.double(), label.double(), 0.7)
    together = exact.synthesis(styles)
    for row in range(2):
        assert_close(exact.synthesis(styles[row : row + 1]), together[row : row + 1], 1e-9)


def test_styles_hold_noise_class_and_truncation(tiny):
    z = tiny.sample_z(2, seed=0)
    styles = tiny.mapping(z, 3, 0.35)
    assert styles.shape == (2, 6, 6 + 5 + 1)
    assert torch.equal(styles[:, 4, :6], z) and torch.equal(styles[..., -1], torch.full((2, 6), 0.35))
    assert torch.equal(styles[1, 2, 6:-1], tiny.embedding.weight[:, 3])
    parts = tiny.synthesis(styles, until=("styles", "z", "class"))
    assert torch.equal(torch.cat([parts["z"], parts["class"]], dim=2), parts["styles"][..., :-1])
    assert torch.equal(parts["styles"], styles)
    per_block = torch.randn(2, 6, 6)
    assert torch.equal(tiny.synthesis(tiny.mapping(per_block, 3), until="z")["z"], per_block)
    assert torch.equal(tiny.synthesis(styles[:, 0]), tiny.synthesis(styles))


def test_a_block_reads_its_own_slot(tiny):
    """Slot 0 makes the first map, slot l + 1 the feature of block l; the last one is also that of the final norm."""
    styles = tiny.mapping(tiny.sample_z(1, seed=0), 1)
    names = tiny.feature_sites
    base = tiny.synthesis(styles, until=names)
    for slot in range(tiny.num_styles):
        changed = styles.clone()
        changed[:, slot] = tiny.mapping(tiny.sample_z(1, seed=5), 2)[:, slot]
        found = tiny.synthesis(changed, until=names)
        first = next(layer for layer, name in enumerate(names) if not torch.equal(found[name], base[name]))
        assert first == max(slot - 1, 0)
    assert not torch.equal(tiny.synthesis(changed), tiny.synthesis(styles))


def test_taps_at_the_parts_act_after_those_at_the_styles(tiny):
    styles, other = tiny.mapping(tiny.sample_z(2, seed=0), 1)[:, None]
    z, embedded = torch.randn(1, 6, 6), torch.randn(1, 6, 5)
    taps = [Replace("z", z), Add("class", embedded), Replace("styles", other)]
    found = tiny.synthesis(styles, taps, until="styles")["styles"]
    assert torch.equal(found, torch.cat([z, other[..., 6:11] + embedded, other[..., 11:]], dim=2))


def test_attention_acts_before_its_block(tiny):
    styles = tiny.mapping(tiny.sample_z(1, seed=0), 1)
    without = copy.deepcopy(tiny)
    without.attention.gain.zero_()
    names = tiny.feature_sites
    found, other = tiny.synthesis(styles, until=names), without.synthesis(styles, until=names)
    assert [torch.equal(found[name], other[name]) for name in names] == [True, True, True, False, False]


def test_what_is_asked_for_ends_the_synthesis(tiny, monkeypatch):
    styles = tiny.mapping(tiny.sample_z(1, seed=0), 1)
    both = tiny.synthesis(styles, until=("F1", "image"))
    assert torch.equal(both["image"], tiny.synthesis(styles)) and both["F1"].shape == (1, 16, 8, 8)
    monkeypatch.setattr(tiny.blocks[2], "forward", lambda *_: pytest.fail("nothing beyond F1 is needed"))
    assert torch.equal(tiny.synthesis(styles, until="F1")["F1"], both["F1"])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda g, z: g.mapping(z), ["needs a label", "below 4"]),
        (lambda g, z: g.mapping(z, 4), ["label 4", "4 classes"]),
        (lambda g, z: g.mapping(z[:, :3], 0), ["[B, 6] or [B, 6, 6]", "[2, 3]"]),
        (lambda g, z: g.mapping(z[:, None], 0), ["[B, 6] or [B, 6, 6]", "[2, 1, 6]"]),
        (lambda g, z: g.mapping(z, 0, 1.2), ["from 0 to 1", "1.2"]),
        (lambda g, z: g.mapping(z, 0, math.nan), ["from 0 to 1", "nan"]),
        (lambda g, z: g.synthesis(g.mapping(z, 0), truncation=-0.1), ["from 0 to 1", "-0.1"]),
        (lambda g, z: g.synthesis(g.mapping(z, 0)[..., :-1]), ["[B, 6, 12]", "[2, 6, 11]"]),
        (lambda g, z: g.synthesis(g.mapping(z, 0), noise="loud"), ["const", "'loud'"]),
        (lambda g, z: g.synthesis(g.mapping(z, 0), until="F5"), ["'F5'", "F4"]),
        (lambda g, z: g.synthesis(g.mapping(z, 0), [Add("rgb4", z)]), ["'rgb4'", "class"]),
        (lambda g, z: g.statistics(0), ["no w", "standard normal"]),
    ],
)
def test_what_it_refuses(tiny, call, words):
    with pytest.raises(InputError) as caught:
        call(tiny, tiny.sample_z(2, seed=0))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"z_dim": 0}, "from 1 up"),
        ({"num_statistics": 1}, "from 2 up"),
        ({"blocks": ()}, "one or more"),
        ({"blocks": ((False, 4, 4), (True, 2, 2))}, "outputs of the one before"),
        ({"blocks": ((True, 8, 2),)}, "half as many"),
        ({"blocks": ((True, 1, 1),), "width": 2}, "4 channels"),
        ({"attention": 10}, "one of 10 blocks"),
        ({"attention": -1}, "one of 10 blocks"),
    ],
)
def test_configurations_that_make_no_network(settings, words):
    with pytest.raises(InputError, match=words):
        BigGANDeepConfig(**settings)


def test_a_saved_generator_is_the_same(tiny, tmp_path):
    opened = saminv.load_generator(save_generator(tiny, tmp_path / "tiny.safetensors"))
    assert isinstance(opened, BigGANDeep) and opened.config == tiny.config
    assert opened.fingerprint == tiny.fingerprint
    styles = tiny.mapping(tiny.sample_z(1, seed=0), 1, 0.3)
    assert torch.equal(opened.synthesis(styles), tiny.synthesis(styles))


def test_features_are_measured_over_all_classes(tiny):
    styles = tiny._typical_styles(32)
    seen = {tuple(row.tolist()) for row in tiny.synthesis(styles, until="class")["class"][:, 0]}
    assert len(seen) == 4
    channels = tiny.synthesis(styles, until="F2")["F2"].transpose(0, 1).flatten(1)
    assert_close(tiny.feature_deviation("F2"), channels.std(dim=1), 1e-5)


class TestHuggingFace:
    """The adapter of names and configuration."""

    def test_the_published_network_has_exactly_its_arrays(self):
        """Names and shapes of the full 128-pixel network, on the device that has no memory."""
        path = next((f / "keys" / "biggan_deep_128.json" for f in GOLDEN_DIRS if (f / "keys").is_dir()), None)
        if path is None:
            pytest.skip("the lists of names are not in ../shared/golden")
        listed = json.loads(path.read_text())
        with torch.device("meta"):
            generator = BigGANDeep(BigGANDeepConfig())
        ours = sum(p.numel() for p in generator.state_dict().values())
        shapes = {name: shape for name, shape, _ in listed["keys"]}
        norms = sum(math.prod(shape) for name, shape in shapes.items() if name.endswith(("weight_u", "weight_v")))
        dropped = (128 - 3) * (128 * 9 + 1)
        assert ours == sum(map(math.prod, shapes.values())) - norms - dropped
        assert generator.image_size == (128, 128) and generator.default_spaces == ("Z+", "F2")
        assert BLOCKS[128] == tuple(map(tuple, listed["meta"]["config"]["layers"]))

    @pytest.mark.parametrize("resolution", [128, 256, 512])
    def test_layers_follow_from_the_resolution(self, resolution):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6, blocks=BLOCKS[resolution], attention=8))
        layers = settings.pop("layers")
        generator = biggan_from_huggingface(arrays, settings)
        assert [list(block) for block in generator.config.blocks] == layers
        assert generator.image_size == (resolution, resolution)
        attended = generator.sites[f"F{generator.config.attention - 1}"].shape
        assert attended[1:] == (64, 64)

    def test_what_was_taken_apart_is_put_together(self, tiny):
        tiny = toy_biggan_deep(embed_dim=6)
        generator = biggan_from_huggingface(*published_form(tiny))
        styles = tiny.mapping(tiny.sample_z(2, seed=0), 1, 0.37)
        assert_close(generator.synthesis(styles), tiny.synthesis(styles), 1e-5)

    def test_a_network_without_attention(self):
        tiny = toy_biggan_deep(embed_dim=6, attention=None)
        arrays, settings = published_form(tiny)
        generator = biggan_from_huggingface(arrays, {**settings, "attention_layer_position": 20})
        z = tiny.sample_z(1, seed=0)
        assert_close(generator(z, 2), tiny(z, 2), 1e-5)

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"z_dim": None}, "makes no sense: None is no whole number"),
            ({"z_dim": True}, "True is no whole number"),
            ({"channel_width": 0}, "0 is no whole number from 1 up"),
            ({"channel_width": 10**9}, "needs"),
            ({"num_classes": 5}, r"'embeddings.weight' is \[6, 4\]; its configuration needs \[6, 5\]"),
            ({"n_stats": 1}, "from 2 up"),
            ({"n_stats": 12}, "running_means"),
            ({"output_dim": 64}, "output_dim is 64, but the layers make 32"),
            ({"layers": None, "output_dim": 32}, "must be listed for an output_dim of 32"),
            ({"layers": None, "output_dim": 128}, "is .*; its configuration needs"),
            ({"layers": [[True, 8]]}, "makes no sense"),
            ({"layers": 3}, "makes no sense"),
            ({"layers": [[True, 8, 3]]}, "half as many"),
            ({"layers": [[False, 8, 8]] * 100000}, "output_dim is 32, but the layers make 4"),
            ({"attention_layer_position": -1}, "-1 is no whole number from 0 up"),
            ({"attention_layer_position": 1}, "layers.2.conv_1.weight_orig' is"),
            ({"eps": "small"}, "makes no sense"),
        ],
    )
    def test_configurations_that_do_not_fit(self, change, words):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        with pytest.raises(CheckpointError, match=words):
            biggan_from_huggingface(arrays, {**settings, **change})

    @pytest.mark.parametrize("name", ["output_dim", "z_dim", "num_classes", "channel_width"])
    def test_settings_that_have_to_be_there(self, name):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        del settings[name]
        with pytest.raises(CheckpointError, match=f"has no '{name}'"):
            biggan_from_huggingface(arrays, settings)

    def test_every_array_has_to_be_there(self):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        for name in arrays:
            rest = {other: tensor for other, tensor in arrays.items() if other != name}
            with pytest.raises(CheckpointError, match=f"has no array '{name}'"):
                biggan_from_huggingface(rest, settings)

    def test_every_array_has_to_have_its_shape_and_be_finite(self):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        for name, tensor in arrays.items():
            longer = torch.cat([tensor, tensor])
            with pytest.raises(CheckpointError):
                biggan_from_huggingface({**arrays, name: longer}, settings)
            broken = tensor.clone(memory_format=torch.contiguous_format)
            broken.view(-1)[-1] = torch.nan
            with pytest.raises(CheckpointError, match=f"'{name}' must hold finite"):
                biggan_from_huggingface({**arrays, name: broken}, settings)

    @pytest.mark.parametrize("name", ["generator.layers.9.conv_0.bias", "discriminator.bias"])
    def test_arrays_that_nobody_knows(self, name):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        with pytest.raises(CheckpointError, match=f"has no array '{name}'"):
            biggan_from_huggingface({**arrays, name: torch.ones(1)}, settings)

    def test_other_types_of_numbers(self):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        double = biggan_from_huggingface({name: tensor.double() for name, tensor in arrays.items()}, settings)
        assert double.dtype == torch.float32
        whole = {**arrays, "embeddings.weight": arrays["embeddings.weight"].long()}
        with pytest.raises(CheckpointError, match="floating-point"):
            biggan_from_huggingface(whole, settings)

    def test_a_spectral_norm_of_zero(self):
        arrays, settings = published_form(toy_biggan_deep(embed_dim=6))
        name = "generator.layers.1.conv_2"
        arrays[f"{name}.weight_u"] = torch.zeros_like(arrays[f"{name}.weight_u"])
        with pytest.raises(CheckpointError, match=f"'{name}' has a spectral norm of 0"):
            biggan_from_huggingface(arrays, settings)


def published_form(generator: BigGANDeep) -> tuple[dict[str, torch.Tensor], dict]:
    """Arrays and configuration in the published form: weights with random spectral norms, more RGB channels."""
    config, arrays = generator.config, {}
    source = torch.Generator().manual_seed(0)

    def put(name: str, weight: torch.Tensor) -> None:
        # The vectors are not those of the largest singular value; the rule does not ask for that.
        right = torch.randn(weight[0].numel(), generator=source)
        left = weight.flatten(1) @ right
        arrays[f"{name}.weight_orig"], arrays[f"{name}.weight_v"] = 3 * weight, right
        arrays[f"{name}.weight_u"] = left / left.square().sum()

    def put_layer(name: str, layer) -> None:
        put(name, layer.weight)
        if layer.bias is not None:
            arrays[f"{name}.bias"] = layer.bias

    def put_statistics(name: str, norm) -> None:
        arrays[f"{name}.running_means"], arrays[f"{name}.running_vars"] = norm.means, norm.variances

    arrays["embeddings.weight"] = generator.embedding.weight
    put_layer("generator.gen_z", generator.first)
    places = [k + (config.attention is not None and k >= config.attention) for k in range(len(config.blocks))]
    for place, block in zip(places, generator.blocks):
        for part, (norm, conv) in enumerate(zip(block.norms, block.convs)):
            name = f"generator.layers.{place}.bn_{part}"
            put_statistics(name, norm)
            for half, weight in zip(("scale", "offset"), norm.condition.weight.chunk(2)):
                put(f"{name}.{half}", weight)
            put_layer(f"generator.layers.{place}.conv_{part}", conv)
    if generator.attention is not None:
        name = f"generator.layers.{config.attention}"
        for theirs, ours in (("theta", "query"), ("phi", "key"), ("g", "value"), ("o_conv", "output")):
            put(f"{name}.snconv1x1_{theirs}", getattr(generator.attention, ours).weight)
        arrays[f"{name}.gamma"] = generator.attention.gain.reshape(1)
    put_statistics("generator.bn", generator.norm)
    arrays["generator.bn.weight"], arrays["generator.bn.bias"] = generator.norm.scale, generator.norm.offset
    weight, bias = generator.torgb.weight, generator.torgb.bias
    more = torch.randn(5, *weight.shape[1:], generator=source)
    put("generator.conv_to_rgb", torch.cat([weight, more]))
    arrays["generator.conv_to_rgb.bias"] = torch.cat([bias, torch.ones(5)])
    settings = {
        "output_dim": config.resolution,
        "z_dim": config.z_dim,
        "class_embed_dim": config.embed_dim,
        "channel_width": config.width,
        "num_classes": config.label_dim,
        "layers": [list(block) for block in config.blocks],
        "attention_layer_position": config.attention if config.attention is not None else 99,
        "eps": config.eps,
        "n_stats": config.num_statistics,
    }
    return {name: tensor.detach().clone() for name, tensor in arrays.items()}, settings
