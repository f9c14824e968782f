"""Metrics against other implementations, and the laws that hold for every metric."""

from __future__ import annotations

import copy
import functools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import assert_close, golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saminv._errors import CheckpointError, InputError, OutputError, WeightsError
from saminv.images import area_resize
from saminv.metrics import METRICS, AbstractMetric, drift, edit_effect, get_metric, latent_editing_consistency
from saminv.metrics._base import weighted_mean
from saminv.metrics.identity import FaceResNet, IdentitySimilarity
from saminv.metrics.layers import ArcFace
from saminv.metrics.lpips import BACKBONES
from saminv.metrics.ssim import EXPONENTS, MSSSIM
from saminv.metrics.vision import DemoPerceptual, VisionConfig, VisionNet, load_vision, save_vision
from saminv.ops.lpips_head import unit_length

CONFIG = VisionConfig(
    num_segments=17,
    factors=("x", "hue", "facing", "size"),
    arcs=(("hue", -0.35, 4.9),),
    binary=("facing",),
)
SIZE = (48, 36)


def images(count: int = 3, size: tuple[int, int] = SIZE, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *size, generator=generator, dtype=dtype) * 2 - 1


def pair(dtype: torch.dtype = torch.float32, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    target = images(seed=1, size=size, dtype=dtype)
    return (target + 0.3 * images(seed=2, size=size, dtype=dtype)).clamp(-1, 1), target


@functools.cache
def random_stack(net: str) -> nn.Module:
    """A torchvision feature stack that was never trained."""
    from torchvision import models

    make = {"vgg": models.vgg16, "alex": models.alexnet, "squeeze": models.squeezenet1_1}[net]
    with torch.device("meta"):
        features = make(weights=None).features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d):
            fan = layer.weight[0].numel()
            layer.weight.data.normal_(0, math.sqrt(2 / fan), generator=generator)
            layer.bias.data.normal_(0, 0.1, generator=generator)
    return features


def random_backbone(net: str) -> dict[str, Tensor]:
    """Its weights under torchvision's names."""
    return {f"features.{key}": value for key, value in random_stack(net).state_dict().items()}


def small_vision() -> VisionNet:
    torch.manual_seed(5)
    network = VisionNet(CONFIG)
    network.perceptual_scale.fill_(0.2)
    for k, weight in enumerate(network.perceptual_weights):
        weight.copy_(torch.rand(len(weight), generator=torch.Generator().manual_seed(k)))
    return network.requires_grad_(False)


@functools.cache
def face_state() -> dict[str, Tensor]:
    """A small random network in the layout of model_ir_se50.pth."""
    torch.manual_seed(6)
    network = FaceResNet([(16, 16, 2), (16, 32, 2), (32, 32, 1), (32, 64, 2)], squeeze=True, affine=True)
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network.state_dict()


BUILDERS: dict[str, Callable[[], AbstractMetric]] = {
    "mse": lambda: get_metric("mse"),
    "psnr": lambda: get_metric("psnr"),
    "ssim": lambda: get_metric("ssim"),
    # Two scales fit into the small pictures below.
    "ms-ssim": lambda: get_metric("ms-ssim", scales=2),
    "identity": lambda: get_metric("identity", weights=face_state()),
    "demo": lambda: get_metric("demo", network=small_vision()),
    **{f"lpips-{net}": lambda net=net: get_metric(f"lpips-{net}", weights=random_backbone(net)) for net in BACKBONES},
}


@pytest.fixture(scope="module", params=BUILDERS)
def metric(request: pytest.FixtureRequest) -> AbstractMetric:
    return BUILDERS[request.param]()


def reference_lpips(net: str, spatial: bool) -> nn.Module:
    """The lpips package's own module, which is made to find the random stack instead of torchvision's network."""
    import lpips

    name = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}[net]
    ours = SimpleNamespace(features=copy.deepcopy(random_stack(net)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpips.pretrained_networks.tv, name, lambda pretrained: ours)
        return lpips.LPIPS(net=net, pnet_rand=True, spatial=spatial, verbose=False)


def test_all_registered_metrics_are_under_test() -> None:
    assert set(METRICS) == set(BUILDERS)


# Laws of every metric.


def test_shapes_and_map_size(metric: AbstractMetric) -> None:
    image, target = pair()
    prepared = metric.prepare(target)
    assert metric(image, prepared).shape == (3,)
    assert torch.isfinite(metric(image, prepared)).all()
    if metric.spatial:
        assert metric.map(image, prepared).shape == (3, 1, *SIZE)
    else:
        with pytest.raises(InputError, match="no map"):
            metric.map(image, prepared)


def test_identical_images_are_best(metric: AbstractMetric) -> None:
    image, target = pair()
    best = metric.compare(target, target)
    expected = {"psnr": math.inf, "ssim": 1.0, "ms-ssim-2": 1.0, "identity": 1.0}.get(metric.name, 0.0)
    assert torch.allclose(best, torch.full_like(best, expected), atol=1e-6)
    worse = metric.compare(image, target)
    assert ((best > worse) if metric.higher_is_better else (best < worse)).all()


def test_a_batch_is_its_images_alone(metric: AbstractMetric) -> None:
    metric.double()
    image, target = pair(torch.float64)
    together = metric.compare(image, target)
    alone = torch.cat([metric.compare(image[b : b + 1], target[b : b + 1]) for b in range(3)])
    assert_close(together, alone, 1e-12)
    if metric.spatial:
        maps = metric.map(image, metric.prepare(target))
        single = torch.cat([metric.map(image[b : b + 1], metric.prepare(target[b : b + 1])) for b in range(3)])
        assert_close(maps, single, 1e-12)
    metric.float()


def test_selected_rows_of_a_prepared_target(metric: AbstractMetric) -> None:
    image, target = pair()
    prepared, rows = metric.prepare(target), torch.tensor([2, 0])
    expected = metric(image, prepared)
    assert_close(metric(image[rows], prepared.select(rows)), expected[rows], 1e-6)
    assert_close(metric(image[rows], prepared.select([2, 0])), expected[rows], 1e-6)
    mask = torch.tensor([True, False, True])
    assert_close(metric(image[mask], prepared.select(mask)), expected[mask], 1e-6)
    assert prepared.select(slice(1, 3)).batch == 2
    assert all(tensor.dtype == torch.float64 for tensor in prepared.to(torch.float64).tensors)
    assert not any(tensor.requires_grad for tensor in metric.prepare(target.requires_grad_()).tensors)


def test_the_gradient_reaches_the_image_and_is_finite_on_flat_pictures(metric: AbstractMetric) -> None:
    image, target = pair()
    # Flat black patches are where rectified features vanish as a whole.
    image[:, :, :24], target[:, :, :12] = -1.0, -1.0
    image.requires_grad_()
    metric.compare(image, target).sum().backward()
    assert torch.isfinite(image.grad).all()
    assert (image.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_gradient_of_one_image_does_not_touch_the_others(metric: AbstractMetric) -> None:
    image, target = pair()
    image.requires_grad_()
    metric.compare(image, target)[1].backward()
    assert image.grad[0].abs().max() == 0 and image.grad[2].abs().max() == 0 < image.grad[1].abs().max()


def test_weights_of_pixels(metric: AbstractMetric) -> None:
    image, target = pair()
    prepared = metric.prepare(target)
    left = torch.zeros(1, 1, *SIZE)
    left[..., : SIZE[1] // 2] = 1.0
    if metric.name == "identity":
        with pytest.raises(InputError, match="whole pictures"):
            metric(image, prepared, left)
        return
    weighted = metric(image, prepared, left)
    assert weighted.shape == (3,)
    assert_close(metric(image, prepared, 7.0 * left.expand(3, -1, -1, -1)), weighted, 1e-5)
    if metric.spatial:
        expected = metric.map(image, prepared)[..., : SIZE[1] // 2].mean(dim=(1, 2, 3))
        assert_close(weighted, expected, 1e-5)
        assert metric(image, prepared, torch.zeros_like(left)).abs().max() == 0


@pytest.mark.parametrize("size", [(33, 47), (64, 31)])
def test_odd_sizes(metric: AbstractMetric, size: tuple[int, int]) -> None:
    image, target = pair(size=size)
    prepared = metric.prepare(target)
    assert torch.isfinite(metric(image, prepared)).all()
    if metric.spatial:
        assert metric.map(image, prepared).shape == (3, 1, *size)


def test_channels_last_changes_nothing(metric: AbstractMetric) -> None:
    image, target = pair()
    expected = metric.compare(image, target)
    got = metric.compare(*(x.to(memory_format=torch.channels_last) for x in (image, target)))
    assert_close(got, expected, 1e-5)


def test_bad_shapes_are_refused(metric: AbstractMetric) -> None:
    image, target = pair()
    prepared = metric.prepare(target)
    for wrong in (target[0], target[:, :1], (target * 100).to(torch.uint8), target[..., :0], target.numpy()):
        with pytest.raises(InputError):
            metric.prepare(wrong)
    for wrong in (image[:2], image[..., 1:], image[:1]):
        with pytest.raises(InputError, match="prepared target is"):
            metric(wrong, prepared)
    for weight in (torch.ones(3, 3, *SIZE), torch.ones(*SIZE), torch.ones(2, 1, *SIZE)):
        with pytest.raises(InputError, match="weight"):
            metric(image, prepared, weight)
    other = get_metric("psnr" if metric.name == "mse" else "mse")
    with pytest.raises(InputError, match="was prepared by"):
        metric(image, other.prepare(target))


def test_images_below_the_least_size_are_refused(metric: AbstractMetric) -> None:
    least = metric.smallest
    tiny = images(size=(least, least))
    assert torch.isfinite(metric.compare(tiny, tiny * 0.5)).all()
    if least > 1:
        with pytest.raises(InputError, match=f"at least {least} x {least}"):
            metric.prepare(images(size=(least, least - 1)))


# Against other implementations.


def test_mse_and_psnr_against_scikit_image() -> None:
    measure = pytest.importorskip("skimage.metrics")
    image, target = pair()
    for b in range(3):
        a, c = image[b].numpy(), target[b].numpy()
        assert get_metric("mse").compare(image, target)[b].item() == pytest.approx(
            measure.mean_squared_error(c, a), rel=1e-5
        )
        assert get_metric("psnr").compare(image, target)[b].item() == pytest.approx(
            measure.peak_signal_noise_ratio(c, a, data_range=2.0), rel=1e-5
        )


def test_ssim_against_scikit_image() -> None:
    measure = pytest.importorskip("skimage.metrics")
    image, target = pair(torch.float64)
    metric = get_metric("ssim")
    got, maps = metric.compare(image, target), metric.map(image, metric.prepare(target))
    for b in range(3):
        score, full = measure.structural_similarity(
            (target[b].numpy() + 1) / 2,
            (image[b].numpy() + 1) / 2,
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        assert got[b].item() == pytest.approx(score, abs=1e-8)
        inside = np.mean(full, axis=0)[5:-5, 5:-5]
        assert np.abs(maps[b, 0, 5:-5, 5:-5].numpy() - inside).max() < 1e-8


def test_mse_and_psnr_against_torchmetrics() -> None:
    outside = pytest.importorskip("torchmetrics.functional.image")
    image, target = pair()
    expected = outside.peak_signal_noise_ratio(image, target, data_range=2.0, reduction="none", dim=(1, 2, 3))
    assert_close(get_metric("psnr").compare(image, target), expected, 1e-5)
    error = torch.stack([nn.functional.mse_loss(a, b) for a, b in zip(image, target)])
    assert_close(get_metric("mse").compare(image, target), error, 1e-5)


def reference_ssim(image: Tensor, target: Tensor) -> Tensor:
    """SSIM by scikit-image in float64, `[B]`."""
    measure = pytest.importorskip("skimage.metrics")
    pairs = [(((t + 1) / 2).double().numpy(), ((i + 1) / 2).double().numpy()) for i, t in zip(image, target)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    found = [measure.structural_similarity(t, i, data_range=1.0, channel_axis=0, **options) for t, i in pairs]
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("level", [-1.0, 0.3, 0.97])
def test_ssim_keeps_its_digits_in_flat_pictures(level: float) -> None:
    target = level + 0.03 * images(seed=3)
    image = target + 0.01 * images(seed=4)
    assert_close(get_metric("ssim").compare(image, target), reference_ssim(image, target), 1e-5)


def test_ssim_map_against_torchmetrics() -> None:
    outside = pytest.importorskip("torchmetrics.functional.image")
    image, target = pair(torch.float64)
    # With its usual reduction torchmetrics averages over the whole map, whose border is by reflection.
    unit = ((image + 1) / 2, (target + 1) / 2)
    mean, full = outside.structural_similarity_index_measure(
        *unit, data_range=1.0, reduction="none", return_full_image=True
    )
    metric = get_metric("ssim")
    maps = metric.map(image, metric.prepare(target))
    assert_close(maps, full.mean(dim=1, keepdim=True), 1e-5)
    assert_close(maps.mean(dim=(1, 2, 3)), mean, 1e-5)


@pytest.mark.parametrize("size", [(176, 181), (203, 190)])
def test_ms_ssim_against_torchmetrics_and_scikit_image(size: tuple[int, int]) -> None:
    outside = pytest.importorskip("torchmetrics.functional.image.ssim")
    image, target = pair(torch.float64, size=size)
    expected = torch.ones(3, dtype=torch.float64)
    a, b = (image + 1) / 2, (target + 1) / 2
    for exponent in EXPONENTS[:-1]:
        # The contrast of torchmetrics is over the places that the window fits in; its own product takes the coarsest
        # scale with the border, against the paper, so that this scale is scikit-image's.
        contrast = outside._ssim_update(a, b, data_range=1.0, return_contrast_sensitivity=True)[1]
        expected *= contrast**exponent
        a, b = (nn.functional.avg_pool2d(x, 2) for x in (a, b))
    expected *= reference_ssim(2 * a - 1, 2 * b - 1) ** EXPONENTS[-1]
    assert_close(MSSSIM().compare(image, target), expected, 1e-10)
    assert_close(MSSSIM().compare(image.float(), target.float()), expected, 1e-5)


def test_ms_ssim_with_fewer_scales() -> None:
    image, target = pair(torch.float64)
    assert_close(MSSSIM(1).compare(image, target), get_metric("ssim").compare(image, target), 1e-12)
    assert [MSSSIM(scales).name for scales in (5, 3)] == ["ms-ssim", "ms-ssim-3"]
    assert [MSSSIM(scales).smallest for scales in (5, 3)] == [176, 44]
    assert sum(MSSSIM(3).exponents) == pytest.approx(1.0)
    with pytest.raises(InputError, match="at least 176 x 176"):
        get_metric("ms-ssim").prepare(target)
    for scales in (0, 6):
        with pytest.raises(InputError, match="1 to 5"):
            MSSSIM(scales)


def test_ms_ssim_of_opposite_pictures_is_zero_with_a_finite_gradient() -> None:
    target = images(size=(64, 64))
    image = (-target).requires_grad_()
    value = MSSSIM(2).compare(image, target)
    value.sum().backward()
    assert value.tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(image.grad).all()


def test_ms_ssim_with_a_weight_everywhere_is_that_of_the_whole_maps() -> None:
    image, target = pair(torch.float64)
    metric = MSSSIM(1)
    whole = metric(image, metric.prepare(target), torch.ones(1, 1, *SIZE))
    single = get_metric("ssim")
    assert_close(whole, single.map(image, single.prepare(target)).mean(dim=(1, 2, 3)), 1e-12)


@pytest.mark.parametrize("net", BACKBONES)
def test_lpips_equals_the_package(net: str) -> None:
    image, target = pair(size=(64, 47))
    metric = BUILDERS[f"lpips-{net}"]()
    prepared = metric.prepare(target)
    with torch.no_grad():
        assert_close(metric(image, prepared), reference_lpips(net, False)(image, target).flatten(), 1e-6)
        assert_close(metric.map(image, prepared), reference_lpips(net, True)(image, target), 1e-6)


@pytest.mark.parametrize("net", BACKBONES)
def test_lpips_gradient_equals_the_package(net: str) -> None:
    image, target = pair(size=(64, 47))
    gradients = []
    for compare in (BUILDERS[f"lpips-{net}"]().compare, reference_lpips(net, False)):
        leaf = image.clone().requires_grad_()
        compare(leaf, target).sum().backward()
        gradients.append(leaf.grad)
    assert_close(gradients[0], gradients[1], 1e-5)


# LPIPS: where its weights come from.


def test_lpips_passes_the_target_through_the_backbone_once() -> None:
    metric = BUILDERS["lpips-squeeze"]()
    image, target = pair()
    prepared = metric.prepare(target)
    seen: list[int] = []
    metric.lpips.net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    metric(image, prepared)
    assert seen == [3]


def test_lpips_construction_is_silent_and_leaves_the_random_state_alone(capsys: pytest.CaptureFixture[str]) -> None:
    backbone = random_backbone("squeeze")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    metric = get_metric("lpips-squeeze", weights=backbone)
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert not any(module.training for module in metric.train().modules())


@pytest.mark.parametrize("legacy", [False, True])
def test_lpips_reads_files_folders_and_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    backbone = random_backbone("squeeze")
    # The whole file has a classifier as well, which is left unread.
    torch.save(
        {**backbone, "classifier.1.weight": torch.zeros(1000, 512, 1, 1)},
        tmp_path / BACKBONES["squeeze"].file,
        _use_new_zipfile_serialization=not legacy,
    )
    image, target = pair()
    expected = get_metric("lpips-squeeze", weights=backbone).compare(image, target)
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path))
    for weights in (tmp_path / BACKBONES["squeeze"].file, tmp_path, None):
        assert torch.equal(get_metric("lpips-squeeze", weights=weights).compare(image, target), expected)


def test_lpips_offline_names_the_address_the_path_and_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import saminv.weights._fetch as module

    def offline(*_: object, **__: object) -> None:
        raise module.urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(module.urllib.request, "urlopen", offline)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    with pytest.raises(WeightsError) as caught:
        get_metric("lpips-vgg")
    message = str(caught.value)
    for part in (BACKBONES["vgg"].url, str(tmp_path / "vgg16-397923af.pth"), "SAMINV_WEIGHTS", "weights=", "not known"):
        assert part in message


def test_lpips_refuses_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"vgg16-397923af\.pth"):
        get_metric("lpips-vgg", weights=tmp_path)
    with pytest.raises(CheckpointError, match="not the weights of lpips-vgg"):
        get_metric("lpips-vgg", weights=random_backbone("alex"))
    path = tmp_path / "file.pth"
    for content in (b"", b"text", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            get_metric("lpips-vgg", weights=path)
    # A pickle that would run a command is refused, not run.
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError):
        get_metric("lpips-vgg", weights=path)
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="no state dict"):
        get_metric("lpips-vgg", weights=path)


def test_unit_length_is_finite_in_value_and_gradient_at_zero() -> None:
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit_length(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    y = torch.randn(2, 5, 3, 3)
    assert_close(unit_length(y).square().sum(dim=1), torch.ones(2, 3, 3), 1e-6)


# Identity.


def reference_face(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The layout of model_ir_se50.pth, step by step."""

    def norm(name: str, x: Tensor) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.batch_norm(x, *parts)

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return nn.functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    x = nn.functional.prelu(norm("input_layer.1", conv("input_layer.0", x, 1, 1)), state["input_layer.2.weight"])
    for number, stride in enumerate((2, 2, 1, 2)):
        name = f"body.{number}"
        kept = x[..., ::stride, ::stride]
        if f"{name}.shortcut_layer.0.weight" in state:
            kept = norm(f"{name}.shortcut_layer.1", conv(f"{name}.shortcut_layer.0", x, stride))
        y = conv(f"{name}.res_layer.1", norm(f"{name}.res_layer.0", x), 1, 1)
        y = conv(f"{name}.res_layer.3", nn.functional.prelu(y, state[f"{name}.res_layer.2.weight"]), stride, 1)
        y = norm(f"{name}.res_layer.4", y)
        gate = nn.functional.adaptive_avg_pool2d(y, 1)
        gate = conv(f"{name}.res_layer.5.fc2", conv(f"{name}.res_layer.5.fc1", gate).relu()).sigmoid()
        x = y * gate + kept
    x = norm("output_layer.0", x).flatten(1)
    x = norm("output_layer.4", nn.functional.linear(x, state["output_layer.3.weight"], state["output_layer.3.bias"]))
    return x / x.norm(dim=1, keepdim=True)


def test_identity_is_the_cosine_of_scipy_between_embeddings() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    image, target = pair(size=(112, 112))
    metric = IdentitySimilarity(face_state())
    embeddings = [reference_face(face_state(), x) for x in (image, target)]
    assert_close(metric.embed(image), embeddings[0], 1e-5)
    got = metric.compare(image, target)
    for b in range(3):
        assert got[b].item() == pytest.approx(1 - distance.cosine(*(e[b].double() for e in embeddings)), rel=1e-5)
    assert got.max() < 0.999, "unlike pictures, so that pairing matters"


def test_identity_sees_the_face_of_aligned_pictures() -> None:
    image = images(2, (512, 512))
    metric = IdentitySimilarity(face_state(), crop="ffhq")
    pool = nn.functional.adaptive_avg_pool2d
    face = pool(pool(image, 256)[:, :, 35:223, 32:220], 112)
    assert_close(metric.embed(image), reference_face(face_state(), face), 1e-5)
    assert_close(metric.embed(area_resize(image, 256)), metric.embed(image), 1e-5)
    with pytest.raises(InputError, match="whole, ffhq"):
        IdentitySimilarity(face_state(), crop="middle")


def test_iresnet_against_the_published_trunk() -> None:
    data = golden("fse_encoder")
    network = ArcFace(data.meta["blocks"], (8, 12, 16, 24)).eval()
    names = {"conv.0": "conv1", "conv.1": "bn1", "conv.2": "prelu"}
    state = {}
    for key, value in data.under("state/").items():
        stem = key.rsplit(".", 1)[0]
        if stem in names:
            state[key.replace(stem, names[stem])] = value
        elif key.startswith("block_"):
            state[key.replace("block_", "layer", 1)] = value
    missing = network.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and all(k.split(".")[0] in ("bn2", "fc", "features") for k in missing[0])
    with torch.no_grad():
        x = network.prelu(network.bn1(network.conv1(data["in/image"])))
        for number in range(1, 5):
            x = network.get_submodule(f"layer{number}")(x)
            if number >= 3:
                assert_close(x, data[f"mid/block_{number}"], 1e-5)


@pytest.mark.parametrize(("blocks", "squeeze", "affine"), [((1, 1, 1, 1), False, True), ((2, 3, 1, 1), True, False)])
def test_identity_tells_the_layout_by_the_names(tmp_path: Path, blocks, squeeze: bool, affine: bool) -> None:
    image = images(2, (112, 112))
    torch.manual_seed(7)
    first = ArcFace(blocks).eval()
    path = tmp_path / "backbone.pth"
    torch.save(first.state_dict(), path)
    expected = nn.functional.normalize(first(image)[-1], dim=1)
    assert_close(IdentitySimilarity(path).embed(image), expected.detach(), 1e-6)
    shapes = [(16, 16, 2), (16, 32, 2), (32, 64, 2)]
    second = FaceResNet(shapes, squeeze, affine).eval()
    found = IdentitySimilarity(second.state_dict()).embed(image)
    assert_close(found, nn.functional.normalize(second(image), dim=1).detach(), 1e-6)


def test_identity_without_weights_and_with_wrong_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"arcface.*model_ir_se50\.pth"):
        get_metric("identity")
    (tmp_path / "arcface").mkdir()
    torch.save(face_state(), tmp_path / "arcface" / "model_ir_se50.pth")
    image, target = pair(size=(64, 64))
    expected = IdentitySimilarity(face_state()).compare(image, target)
    assert torch.equal(get_metric("identity").compare(image, target), expected)
    with pytest.raises(WeightsError, match="no file"):
        get_metric("identity", weights=tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="no weights of a face network"):
        get_metric("identity", weights=random_backbone("squeeze"))
    cut = {name: x for name, x in face_state().items() if "body.1.res_layer.1" not in name}
    with pytest.raises(CheckpointError, match="block 1"):
        get_metric("identity", weights=cut)
    cut = {name: x for name, x in face_state().items() if not name.startswith("body")}
    with pytest.raises(CheckpointError, match="no blocks"):
        get_metric("identity", weights=cut)


# The demo's network and its metric.


def test_vision_network_is_small_and_cheap() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = VisionNet(CONFIG)
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    assert size <= 3_000_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.features(torch.zeros(1, 3, 128, 128))
    assert counter.get_total_flops() / 2 <= 60e6, "multiply-adds of one 128 x 128 image"


@pytest.mark.parametrize("size", [(128, 128), (48, 80), (33, 50), (7, 5)])
def test_vision_heads_take_any_size(size: tuple[int, int]) -> None:
    network, image = small_vision(), images(2, size)
    taps = network.features(image)
    assert [tap.shape[1] for tap in taps] == list(CONFIG.channels)
    assert [tap.shape[2] for tap in taps] == [math.ceil(size[0] / 2**k) for k in range(5)]
    assert network.segment_logits(image).shape == (2, 17, *size)
    factors = network.factors(image)
    assert factors.shape == (2, 4)
    assert ((factors[:, 2] > 0) & (factors[:, 2] < 1)).all()
    logits, reading = network(image)
    assert torch.equal(logits, network.segment_logits(image))
    assert torch.equal(network.decode_factors(reading), factors)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_factors_survive_their_encoding(values: list[float]) -> None:
    network = VisionNet(CONFIG)
    factors = torch.tensor([values], dtype=torch.float64)
    factors[:, 2] = factors[:, 2].round()
    reading = network.encode_factors(factors)
    assert reading.linear.shape == (1, 2) and reading.circular.shape == (1, 1, 2)
    assert_close(reading.circular.square().sum(dim=-1), torch.ones(1, 1, dtype=torch.float64), 1e-12)
    decoded = network.decode_factors(reading)
    keep = [0, 1, 3]
    assert torch.allclose(decoded[:, keep], factors[:, keep], atol=1e-9)
    assert torch.equal(reading.logits[:, 0], factors[:, 2])


@pytest.mark.parametrize("kinds", [{}, {"arcs": (("a", 0.0, 5.0),)}, {"binary": ("a",)}])
def test_vision_with_factors_of_one_kind(kinds: dict) -> None:
    network = VisionNet(VisionConfig(num_segments=2, factors=("a",), **kinds))
    assert network.factors(images(2)).shape == (2, 1)
    logits, reading = network(images(2))
    target = network.encode_factors(torch.zeros(2, 1))
    assert logits.shape == (2, 2, *SIZE)
    for part in ("linear", "circular", "logits"):
        assert getattr(reading, part).shape == getattr(target, part).shape


def test_vision_refuses_what_is_no_image() -> None:
    for call in (small_vision().segment_logits, small_vision().factors):
        with pytest.raises(InputError, match=r"\[B, 3, H, W\]"):
            call(torch.zeros(3, 32, 32))


def test_vision_config_is_checked_and_survives_json() -> None:
    assert VisionConfig.from_json(CONFIG.to_json()) == CONFIG
    assert CONFIG.period("hue") == pytest.approx(2 * math.pi / 5.25)
    assert CONFIG.period("x") is None
    assert CONFIG.linear == ("x", "size")
    for text in ("", "[]", "{}", '{"num_segments": 3, "unknown": 1}', '{"num_segments": 0, "factors": ["a"]}'):
        with pytest.raises(CheckpointError):
            VisionConfig.from_json(text)
    for wrong in (
        {"factors": ()},
        {"factors": ("a",), "binary": ("absent",)},
        {"factors": ("a",), "channels": (16,)},
        {"factors": ("a", "a")},
        {"factors": ("a",), "arcs": (("a", 1.0, 1.0),)},
        {"factors": ("a",), "arcs": (("a", 0.0, 1.0),), "binary": ("a",)},
    ):
        with pytest.raises(InputError):
            VisionConfig(num_segments=3, **wrong)


def test_vision_files(tmp_path: Path) -> None:
    network, path = small_vision(), tmp_path / "net.safetensors"
    save_vision(network, path, {"note": "a test"})
    loaded = load_vision(path)
    assert loaded.config == CONFIG and not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    image, target = pair()
    expected = DemoPerceptual(network).compare(image, target)
    assert torch.equal(DemoPerceptual(loaded).compare(image, target), expected)
    with pytest.raises(OutputError):
        save_vision(network, tmp_path / "absent" / "net.safetensors")
    network.perceptual_weights[0][0] = -1.0
    save_vision(network, path)
    with pytest.raises(CheckpointError, match="negative"):
        load_vision(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        load_vision(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_vision(tmp_path / "none.safetensors")


def test_vision_refuses_foreign_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no configuration"):
        load_vision(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"config": CONFIG.to_json()})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_vision(path)


def test_demo_metric_has_the_form_of_lpips() -> None:
    network = small_vision()
    metric = DemoPerceptual(network)
    image, target = pair()
    total = torch.zeros(3)
    for a, b, weight in zip(network.features(image), network.features(target), network.perceptual_weights):
        difference = nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)
        total += (difference.square() * weight[:, None, None]).sum(dim=1).mean(dim=(1, 2))
    # The metric's small constant beside the length is what remains between the two.
    assert_close(metric.compare(image, target), 0.2 * total, 1e-3)
    network.perceptual_scale.fill_(0.4)
    assert_close(metric.compare(image, target), 0.4 * total, 1e-3)


def test_demo_metric_leaves_a_given_network_alone() -> None:
    network = VisionNet(CONFIG).train()
    DemoPerceptual(network)
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())


# Editing.


def test_edit_effect_is_the_ratio_of_changes() -> None:
    before, after = torch.tensor([0.1, 0.5, 0.2]), torch.tensor([0.3, 0.5, 0.1])
    got = edit_effect(before, after, torch.tensor([0.0, 0.0, 0.4]), torch.tensor([0.4, 0.4, 0.4]))
    assert_close(got[:2], torch.tensor([0.5, 0.0]), 1e-6)
    assert torch.isnan(got[2]), "the reference did not move"


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3), st.floats(0.1, 3.0), st.integers(-3, 3), st.integers(-3, 3))
def test_edit_effect_wraps_angles(start: float, turn: float, a: int, b: int) -> None:
    period = 2 * math.pi
    one = torch.tensor([start], dtype=torch.float64)
    moved, reference = one + turn / 2 + a * period, one + turn + b * period
    got = edit_effect(one, moved, one, reference, period=period)
    assert got.item() == pytest.approx(0.5, abs=1e-6)


def test_edit_effect_refuses_bad_input() -> None:
    one = torch.zeros(2)
    with pytest.raises(InputError, match="one shape"):
        edit_effect(one, one, one, torch.zeros(3))
    for period in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="period"):
            edit_effect(one, one, one, one, period=period)


def test_latent_editing_consistency_is_the_distance_of_codes() -> None:
    code, returned = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    expected = torch.tensor([np.linalg.norm((code - returned)[b].numpy()) for b in range(3)])
    assert_close(latent_editing_consistency(code, returned), expected, 1e-5)
    assert_close(latent_editing_consistency(code[:, 0], returned[:, 0]), (code - returned)[:, 0].norm(dim=1), 1e-6)
    assert latent_editing_consistency(code, code).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(InputError, match="one shape"):
        latent_editing_consistency(code, returned[:2])


def test_drift_is_the_rms_change_inside_the_mask() -> None:
    before = images(2)
    after, mask = before.clone(), torch.zeros(2, 1, *SIZE)
    after[..., :10] += 0.5
    mask[..., 5:15] = 1.0
    expected = math.sqrt(0.5 * 0.25)
    assert_close(drift(before, after, mask), torch.full((2,), expected), 1e-6)
    assert drift(before, after, 0 * mask).tolist() == [0.0, 0.0]
    assert_close(drift(before, after), get_metric("mse").compare(before, after).sqrt(), 1e-6)
    with pytest.raises(InputError, match="mask"):
        drift(before, after, mask[:, 0])
    with pytest.raises(InputError, match="differ"):
        drift(before, after[:1])


def test_weighted_mean_has_a_finite_gradient_under_an_empty_weight() -> None:
    values = torch.rand(2, 1, 4, 4, requires_grad=True)
    weight = torch.zeros(2, 1, 4, 4)
    weight[1] = 1.0
    weighted_mean(values, weight).sum().backward()
    assert torch.isfinite(values.grad).all() and values.grad[0].abs().max() == 0


# The registry.


def test_get_metric() -> None:
    metric = get_metric("mse")
    assert get_metric(metric) is metric
    with pytest.raises(InputError, match="lpips-vgg"):
        get_metric("lpips")
    with pytest.raises(InputError, match="no options"):
        get_metric(metric, weights="x")


def test_importing_the_metrics_imports_no_optional_package() -> None:
    code = (
        "import sys, saminv.metrics, saminv.metrics.lpips, saminv.metrics.inception, saminv.weights;"
        "print([m for m in ('lpips', 'torchvision', 'skimage', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
