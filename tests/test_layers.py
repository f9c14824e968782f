"""Losses of the Feature-Style paper: three scales, identity and parsing in five layers, and further losses at all."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from toys import toy_problem, toy_stylegan2

import saminv
from saminv import CheckpointError, InputError
from saminv.images import area_resize
from saminv.metrics import MultiLayerIdentity, MultiLayerParsing, MultiScale, get_metric
from saminv.metrics.layers import ArcFace
from saminv.optim import Objective


@pytest.fixture(scope="module")
def pair():
    source = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 64, 64, generator=source) * 2 - 1 for _ in range(2)]


@pytest.fixture(scope="module")
def arcface():
    torch.manual_seed(0)
    return ArcFace().state_dict()


@pytest.fixture(scope="module")
def parser():
    torchvision = pytest.importorskip("torchvision.models", reason="the face parser is torchvision's ResNet-18")
    torch.manual_seed(0)
    state = torchvision.resnet18(weights=None).state_dict()
    return {f"cp.resnet.{name}": x for name, x in state.items() if not name.startswith("fc.")} | {
        "conv_out.conv.conv.weight": torch.zeros(1)
    }


@pytest.mark.parametrize("name", ["mse", "demo"])
def test_scales_are_summed(pair, name):
    metric = get_metric(name)
    scaled = MultiScale(metric, 3)
    expected = sum(metric.compare(*(area_resize(x, (64 >> k, 64 >> k)) for x in pair)) for k in range(3))
    assert_close(scaled.compare(*pair), expected, 1e-6)
    assert_close(MultiScale(name, 1).compare(*pair), metric.compare(*pair), 1e-6)


def test_targets_of_scales_are_chosen_and_joined(pair):
    scaled = MultiScale("demo")
    prepared = scaled.prepare(pair[1])
    one = [prepared.select([row]) for row in range(2)]
    assert_close(scaled(pair[0], one[0].join(one[1])), scaled(pair[0], prepared), 1e-6)


def test_too_small_for_the_scales():
    metric = get_metric("ssim")
    small = torch.zeros(1, 3, metric.smallest * 2, metric.smallest * 2)
    with pytest.raises(InputError, match=f"at least {4 * metric.smallest} x"):
        MultiScale(metric).prepare(small)
    with pytest.raises(InputError, match="at least 1, got 0"):
        MultiScale("mse", 0)


def test_five_layers_of_identity(pair, arcface):
    metric = MultiLayerIdentity(arcface)
    layers = metric.layers(pair[0])
    assert [tuple(layer.shape[1:]) for layer in layers] == [
        (64, 56, 56),
        (128, 28, 28),
        (256, 14, 14),
        (512, 7, 7),
        (512,),
    ]
    check_cosines(metric, pair)


def test_five_layers_of_parsing(pair, parser):
    metric = MultiLayerParsing(parser)
    sides = [layer.shape[-1] for layer in metric.layers(pair[0])]
    assert sides == [128, 128, 64, 32, 16]
    check_cosines(metric, pair)


def check_cosines(metric, pair):
    """The loss is the formula, 0 for the image itself, and has a gradient."""
    image, target = pair[0].clone().requires_grad_(), pair[1]
    loss = metric.compare(image, target)
    both = [[layer.flatten(1) for layer in metric.layers(x)] for x in (image, target)]
    expected = sum(1 - torch.cosine_similarity(a, b) for a, b in zip(*both))
    assert_close(loss, expected.detach(), 1e-4)
    assert float(metric.compare(target, target).abs().max()) < 1e-4
    assert bool((torch.autograd.grad(loss.sum(), image)[0] != 0).any())
    assert not any(weight.requires_grad for weight in metric.parameters())


def test_files_are_read_and_others_refused(tmp_path, arcface, parser):
    path = tmp_path / "backbone.pth"
    torch.save(arcface, path)
    assert torch.equal(MultiLayerIdentity(path).network.fc.weight, arcface["fc.weight"])
    with pytest.raises(CheckpointError, match=r"backbone\.pth for iresnet-50"):
        MultiLayerIdentity(parser)
    with pytest.raises(CheckpointError, match=r"79999_iter\.pth"):
        MultiLayerParsing(arcface)
    path.write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match="a web page"):
        MultiLayerIdentity(path)


# In an inversion.


def test_further_losses_count(pair):
    toy = toy_stylegan2()
    metric = get_metric("mse")
    objective = Objective(metric, {"l2": 1.0, "twice": 0.5, "perceptual": 1.0}, losses={"twice": MultiScale(metric, 2)})
    problem = toy_problem(toy, ["W+"], batch=2, objective=objective)
    parts = problem.loss(problem.start())[1]
    assert {"l2", "perceptual", "twice"} <= set(parts)
    assert_close(
        objective.total({"l2": parts["l2"], "twice": parts["twice"]}), parts["l2"] + 0.5 * parts["twice"], 1e-6
    )
    alone = problem.select(torch.tensor([1]))
    assert_close(alone.loss(alone.start())[1]["twice"], parts["twice"][1:], 1e-5)
    joined = alone.join(problem.select(torch.tensor([0])))
    assert_close(joined.loss(joined.start())[1]["twice"], parts["twice"].flip(0), 1e-5)


def test_perceptual_may_be_another_metric_than_that_of_tau():
    toy = toy_stylegan2()
    picture = toy.synthesis(toy.mapping(toy.sample_z(1, seed=3))).clamp(-1, 1)
    settings = {"generator": toy, "metric": "mse", "segmenter": "none", "encoder": "mean", "steps": 3}
    losses = {"perceptual": MultiScale("mse"), "structure": MultiScale("mse", 2)}
    found = saminv.invert(picture, ["W+"], **settings, losses=losses, weights={"structure": 0.3})
    assert found.provenance["metric"] == "mse"
    assert found.provenance["losses"] == {"perceptual": "mse-x3", "structure": "mse-x2"}
    assert found.provenance["weights"]["structure"] == 0.3
    plain = saminv.invert(picture, ["W+"], **settings)
    assert not torch.equal(found.image, plain.image)


@pytest.mark.parametrize(
    ("losses", "words"),
    [({"l2": "mse"}, "other than l2"), ({"x": "ssim"}, "'x' is ssim"), ({"x": "nothing"}, "nothing")],
)
def test_losses_that_are_none(losses, words):
    toy = toy_stylegan2()
    settings = {"generator": toy, "metric": "mse", "segmenter": "none", "encoder": "mean", "steps": 0}
    with pytest.raises(InputError, match=words):
        saminv.invert(torch.full((1, 3, 32, 32), -0.5), ["W+"], **settings, losses=losses)
