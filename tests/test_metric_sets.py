"""Metrics of sets against other implementations; statistics, their files; scores of a table."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close
from test_metrics import face_state, images
from torch import Tensor, nn

import saminv
from saminv._errors import CheckpointError, InputError, OutputError, WeightsError
from saminv.metrics import (
    EXTRACTORS,
    FID,
    KID,
    METRICS,
    SET_METRICS,
    AbstractExtractor,
    DemoFeatures,
    FeatureStatistics,
    IdentityConsistency,
    IdentitySimilarity,
    get_extractor,
    get_metric,
    get_set_metric,
    inception,
    score,
    statistics,
    statistics_of_files,
)
from saminv.metrics.features import resize_clean, resize_tensorflow
from saminv.metrics.sets import frechet_distance, kernel_distance

COUNT = 40


class Patches(AbstractExtractor):
    """Means of four quarters in each channel, mixed: 12 features, float64."""

    name, side, length = "patches", 16, 12

    def __init__(self, seed: int = 0, resizing: str = "clean") -> None:
        super().__init__(resizing)
        mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.mix = nn.Parameter(mix, requires_grad=False)

    def vectors(self, levels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(levels / 64, 2).flatten(1) @ self.mix


def sets(counts: tuple[int, int] = (COUNT, COUNT), side: int = 16) -> tuple[Tensor, Tensor]:
    """Pictures and reference pictures that differ in brightness."""
    pictures, reference = images(counts[0], (side, side), seed=1), images(counts[1], (side, side), seed=2)
    shades = torch.rand(counts[0], 3, 1, 1, generator=torch.Generator().manual_seed(3))
    return (0.6 * pictures + 0.3 * shades).clamp(-1, 1), reference


def filled(metric, pictures: Tensor, reference: Tensor, batch: int = 7):
    for part in pictures.split(batch):
        metric.update(part)
    for part in reference.split(batch):
        metric.update_reference(part)
    return metric


@functools.cache
def inception_state() -> dict[str, Tensor]:
    """Inception's weights, random, with those of the classifier that the published file has too."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    with torch.device("meta"):
        shapes = inception.Inception().state_dict()
    for name, slot in shapes.items():
        if slot.dim() == 4:
            state[name] = torch.randn(slot.shape, generator=generator) * math.sqrt(2 / slot[0].numel())
        elif name.endswith("running_mean"):
            state[name] = torch.randn(slot.shape, generator=generator) * 0.1
        elif name.endswith(("running_var", "weight")):
            state[name] = torch.rand(slot.shape, generator=generator) + 0.5
        else:
            state[name] = torch.zeros(slot.shape, dtype=slot.dtype)
    return {**state, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / inception.FILE.aliases[0]
    torch.save(inception_state(), path)
    return path


# Against other implementations.


@pytest.mark.parametrize(("count", "rank"), [(200, 12), (9, 8)])
def test_frechet_distance_against_scipy(count: int, rank: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    source = np.random.default_rng(0)
    a, b = source.normal(size=(count, 12)) @ source.normal(size=(12, 12)), source.normal(0.3, 1.5, size=(count, 12))
    means, covariances = [x.mean(axis=0) for x in (a, b)], [np.cov(x, rowvar=False) for x in (a, b)]
    assert np.linalg.matrix_rank(covariances[0]) == rank
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    got = frechet_distance(*(torch.from_numpy(x) for pair in zip(means, covariances) for x in pair))
    assert got == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_few_vectors_in_many_dimensions() -> None:
    """With singular covariances rounding errors of the null space must not add up."""
    source = np.random.default_rng(1)
    a, b = source.normal(size=(8, 400)), source.normal(0.1, 1.0, size=(9, 400))
    centred = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    # The roots of the covariances are the centred vectors themselves, up to a rotation.
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + sum((x**2).sum() for x in centred) - 2 * cross
    parts = [(torch.from_numpy(x.mean(axis=0)), torch.from_numpy(np.cov(x, rowvar=False))) for x in (a, b)]
    assert frechet_distance(*parts[0], *parts[1]) == pytest.approx(expected, rel=1e-10)


def outside_module(extractor: AbstractExtractor) -> nn.Module:
    """Our extractor as torchmetrics calls one: 8-bit pictures in."""

    class Outside(nn.Module):
        num_features = extractor.length

        def forward(self, levels: Tensor) -> Tensor:
            return extractor(levels.double() / 127.5 - 1)

    return Outside()


def levels_of(pictures: Tensor) -> Tensor:
    return torch.from_numpy(saminv.images.to_uint8(pictures)).permute(0, 3, 1, 2)


def test_fid_against_torchmetrics() -> None:
    outside = pytest.importorskip("torchmetrics.image.fid")
    pictures, reference = sets()
    extractor = Patches()
    theirs = outside.FrechetInceptionDistance(feature=outside_module(extractor)).set_dtype(torch.float64)
    theirs.update(levels_of(reference), real=True)
    theirs.update(levels_of(pictures), real=False)
    assert filled(FID(extractor), pictures, reference).compute() == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_kid_against_torchmetrics() -> None:
    outside = pytest.importorskip("torchmetrics.image.kid")
    pictures, reference = sets()
    extractor = Patches()
    with warnings.catch_warnings():
        # It says that it keeps all vectors.
        warnings.simplefilter("ignore")
        theirs = outside.KernelInceptionDistance(feature=outside_module(extractor), subsets=3, subset_size=COUNT)
    theirs.update(levels_of(reference), real=True)
    theirs.update(levels_of(pictures), real=False)
    metric = filled(KID(extractor, subsets=3, subset_size=COUNT), pictures, reference)
    assert metric.compute() == pytest.approx(float(theirs.compute()[0]), rel=1e-5)
    assert metric.estimates().shape == (3,)
    # Each subset, by their formula on the vectors that the seed draws.
    some = filled(KID(extractor, subsets=4, subset_size=11, seed=5), pictures, reference)
    source = torch.Generator().manual_seed(5)
    vectors = [extractor(x).float().double() for x in (pictures, reference)]
    for got in some.estimates():
        drawn = [v[torch.randperm(COUNT, generator=source)[:11]] for v in vectors]
        assert got.item() == pytest.approx(float(outside.poly_mmd(*drawn)), rel=1e-5)


def test_kid_of_all_pictures_is_the_unbiased_estimate_for_sets_of_any_size() -> None:
    pictures, reference = sets((13, 9))
    extractor = Patches()
    a, b = (extractor(x).float().double().numpy() for x in (pictures, reference))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    pairs = [np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    expected = sum(pairs) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    metric = filled(KID(extractor, subset_size=None), pictures, reference)
    assert metric.compute() == pytest.approx(expected, rel=1e-9)
    assert metric.estimates().shape == (1,)


def test_kernels_of_many_vectors_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(23, 5, dtype=torch.float64), torch.randn(17, 5, dtype=torch.float64)
    whole = kernel_distance(a, b)
    monkeypatch.setattr("saminv.metrics.sets.ROWS", 4)
    assert_close(kernel_distance(a, b), whole, 1e-12)


@pytest.mark.parametrize("size", [(128, 96), (640, 333), (299, 299)])
def test_clean_resizing_is_that_of_pillow(size: tuple[int, int]) -> None:
    from PIL import Image

    levels = ((images(1, size) + 1) * 127.5).round()
    channels = [Image.fromarray(channel.numpy()) for channel in levels[0]]
    resized = [np.asarray(c.resize((299, 299), resample=Image.Resampling.BICUBIC)).clip(0, 255) for c in channels]
    assert_close(resize_clean(levels, 299)[0], torch.from_numpy(np.stack(resized)), 1e-5)


@pytest.mark.parametrize("size", [(128, 96), (333, 640), (299, 299)])
def test_tensorflow_resizing_is_that_of_torch_fidelity(size: tuple[int, int]) -> None:
    outside = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    levels = ((images(2, size) + 1) * 127.5).round()
    expected = outside.interpolate_bilinear_2d_like_tensorflow1x(levels, size=(299, 299), align_corners=False)
    assert_close(resize_tensorflow(levels, 299), expected, 1e-5)


def test_inception_is_that_of_torch_fidelity(inception_file: Path) -> None:
    outside = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    theirs = outside.FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=str(inception_file))
    pictures = images(2, (96, 120))
    ours = get_extractor("inception", weights=inception_file, resizing="tensorflow")
    assert_close(ours(pictures), theirs(levels_of(pictures))[0], 1e-5)
    # The same network behind the other rule of resizing.
    clean = get_extractor("inception", weights=inception_state())
    square = resize_clean(levels_of(pictures).float(), 299).round()
    assert_close(clean(square / 127.5 - 1), theirs(square.byte())[0], 1e-5)


# Extractors.


def test_inception_files(inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = images(1, (64, 64))
    expected = get_extractor("inception", weights=inception_state())
    found = get_extractor("inception", weights=inception_file.parent)
    assert torch.equal(found(pictures), expected(pictures)) and found.fingerprint() == expected.fingerprint()
    assert found.name == expected.name == "inception-other"
    assert not any(weight.requires_grad for weight in found.parameters())
    assert not any(module.training for module in found.train().modules())
    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "FILE", replace(inception.FILE, sha256=digest))
    monkeypatch.setenv("SAMINV_WEIGHTS", str(inception_file.parent))
    assert get_extractor("inception").name == "inception"
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        get_extractor("inception", weights=tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        get_extractor("inception", weights={"Conv2d_1a_3x3.conv.weight": torch.zeros(1)})
    (tmp_path / "file.pt").write_bytes(b"PK\x03\x04 a program")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        get_extractor("inception", weights=tmp_path / "file.pt")


def test_inception_is_fetched_by_its_published_checksum() -> None:
    assert inception.FILE.sha256.startswith("6726825d") and len(inception.FILE.sha256) == 64
    assert inception.FILE.name == "pt_inception-2015-12-05-6726825d.pth"


def test_extractors_round_to_the_levels_of_a_file() -> None:
    pictures = images(3, (20, 24))
    for extractor in (Patches(), DemoFeatures()):
        rounded = saminv.images.from_uint8(saminv.images.to_uint8(pictures))
        assert_close(extractor(pictures), extractor(rounded), 1e-6)
        assert_close(extractor(3 * pictures), extractor((3 * pictures).clamp(-1, 1)), 1e-12)
        assert extractor(pictures).shape == (3, extractor.length)
        with pytest.raises(InputError, match="NaN"):
            extractor(pictures * math.nan)
        with pytest.raises(InputError, match=r"\[B, 3, H, W\]"):
            extractor(pictures[0])


def test_extractors_are_told_apart() -> None:
    first = Patches()
    assert first.fingerprint() == Patches().fingerprint()
    others = (Patches(seed=1), Patches(resizing="tensorflow"), DemoFeatures())
    assert len({extractor.fingerprint() for extractor in (first, *others)}) == 4
    assert "16 x 16 by clean" in first.what
    with pytest.raises(InputError, match="clean, tensorflow"):
        DemoFeatures(resizing="nearest")
    with pytest.raises(InputError, match="built already"):
        get_extractor(first, resizing="clean")
    with pytest.raises(InputError, match="demo, inception"):
        get_extractor("resnet")


# Statistics.


def test_statistics_do_not_depend_on_batches_or_their_order() -> None:
    pictures, _ = sets()
    extractor = Patches()
    vectors = extractor(pictures)
    whole = FeatureStatistics(extractor).update(pictures)
    parts = [FeatureStatistics(extractor).update(part) for part in pictures.split((1, 20, 12, 7))]
    merged = parts[3].merge(parts[1]).merge(FeatureStatistics(extractor)).merge(parts[0].merge(parts[2]))
    for found in (whole, merged):
        assert found.count == COUNT
        assert_close(found.mean, vectors.mean(dim=0), 1e-12)
        assert_close(found.covariance(), torch.cov(vectors.t()), 1e-10)
    assert parts[1].count == 20, "merging leaves the parts alone"


def test_statistics_keep_their_digits_far_from_zero() -> None:
    extractor = Patches()
    vectors = 1e6 + torch.randn(COUNT, 12, dtype=torch.float64)
    found = FeatureStatistics(extractor)
    for part in vectors.split(3):
        found.add(part)
    assert_close(found.covariance(), torch.cov(vectors.t()), 1e-8)


@pytest.mark.parametrize("keep", [False, True])
def test_statistics_survive_their_file(tmp_path: Path, keep: bool) -> None:
    pictures, _ = sets()
    extractor = Patches()
    found = FeatureStatistics(extractor, keep=keep).update(pictures)
    path = found.save(tmp_path / "set.safetensors")
    again = FeatureStatistics.load(path, Patches())
    assert again.count == COUNT and again.keeps == keep
    assert torch.equal(again.mean, found.mean) and torch.equal(again.scatter, found.scatter)
    if keep:
        assert torch.equal(again.vectors(), found.vectors())
    else:
        with pytest.raises(InputError, match="keep=True"):
            again.vectors()
    with pytest.raises(InputError, match="statistics of patches, resized to 16 x 16 by clean"):
        FeatureStatistics.load(path, Patches(resizing="tensorflow"))
    with pytest.raises(OutputError):
        found.save(tmp_path / "absent" / "set.safetensors")
    assert os.listdir(tmp_path) == ["set.safetensors"]


def test_damaged_files_of_statistics(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    extractor = Patches()
    path = FeatureStatistics(extractor).update(sets()[0]).save(tmp_path / "set.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError):
        FeatureStatistics.load(path, extractor)
    with pytest.raises(CheckpointError, match="cannot be read"):
        FeatureStatistics.load(tmp_path / "none.safetensors", extractor)
    save_file({"mean": torch.zeros(12)}, path)
    with pytest.raises(CheckpointError, match="no statistics"):
        FeatureStatistics.load(path, extractor)
    path.write_bytes(whole)
    tensors = load_file(path)
    said = {"kind": statistics.KIND, "count": "40", "fingerprint": extractor.fingerprint()}
    for wrong in (
        {"mean": tensors["mean"]},
        {**tensors, "mean": tensors["mean"][:3]},
        {**tensors, "mean": tensors["mean"] * math.nan},
    ):
        save_file({name: x.contiguous().clone() for name, x in wrong.items()}, path, metadata=said)
        with pytest.raises(CheckpointError, match="damaged"):
            FeatureStatistics.load(path, extractor)


def test_statistics_refuse_what_does_not_fit() -> None:
    found = FeatureStatistics(Patches())
    with pytest.raises(InputError, match=r"\[B, 12\]"):
        found.add(torch.zeros(2, 3))
    with pytest.raises(InputError, match="NaN"):
        found.add(torch.full((2, 12), math.nan))
    with pytest.raises(InputError, match="at least 2 pictures; there are 0"):
        found.covariance()
    with pytest.raises(InputError, match="do not compare"):
        found.merge(FeatureStatistics(Patches(seed=1)))
    with pytest.raises(InputError, match="keep=True"):
        found.merge(FeatureStatistics(found.extractor, keep=True))


def test_statistics_of_files_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, _ = sets((9, 1))
    files = []
    for row, picture in enumerate(pictures):
        # Sizes change on the way, and a batch ends.
        shown = picture if row % 4 else nn.functional.pad(picture, (0, 8), value=0.5)
        files.append(saminv.images.save(tmp_path / f"{row}.png", shown))
    monkeypatch.setattr(statistics, "BATCH", 2)
    cache, seen = tmp_path / "cache" / "set.safetensors", []
    cache.parent.mkdir()
    extractor = Patches()
    extractor.register_forward_hook(lambda *_: seen.append(1))
    found = statistics_of_files(files, extractor, cache=cache)
    alone = FeatureStatistics(Patches())
    for file in files:
        alone.update(saminv.images.load(file).tensor)
    assert found.count == 9
    assert_close(found.mean, alone.mean, 1e-12)
    assert_close(found.covariance(), alone.covariance(), 1e-10)
    first = len(seen)
    again = statistics_of_files(files, extractor, cache=cache)
    assert len(seen) == first and torch.equal(again.scatter, found.scatter)
    # Other files, other needs, a damaged cache: made anew.
    for call in (
        lambda: statistics_of_files(files[1:], extractor, cache=cache),
        lambda: statistics_of_files(files, extractor, keep=True, cache=cache),
    ):
        before = len(seen)
        call()
        assert len(seen) > before
    os.utime(files[0], ns=(1, 1))
    cache.write_bytes(b"damaged")
    before = len(seen)
    statistics_of_files(files, extractor, cache=cache)
    assert len(seen) > before and FeatureStatistics.load(cache, extractor).count == 9
    with pytest.raises(InputError, match="no pictures"):
        statistics_of_files([], extractor)
    with pytest.raises(InputError, match=r"absent\.png"):
        statistics_of_files([tmp_path / "absent.png"], extractor)


# Metrics of sets.


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_merged_metrics_are_those_of_all_pictures(name: str) -> None:
    pictures, reference = sets()
    extractor = Patches()
    options = {} if name == "fid" else {"subset_size": 20, "subsets": 5, "seed": 2}
    make = functools.partial(get_set_metric, name, extractor=extractor, **options)
    whole = filled(make(), pictures, reference)
    first, second = filled(make(), pictures[:13], reference[:25]), filled(make(), pictures[13:], reference[25:])
    merged = first.merge(second)
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-9)
    assert (first.pictures.count, merged.pictures.count) == (13, COUNT)
    assert merged.fresh().pictures.count == merged.fresh().reference.count == 0


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_a_reference_that_is_given(name: str) -> None:
    pictures, reference = sets()
    extractor = Patches()
    known = FeatureStatistics(extractor, keep=True).update(reference)
    options = {} if name == "fid" else {"subset_size": 20, "subsets": 5}
    make = functools.partial(get_set_metric, name, extractor=extractor, **options)
    expected = filled(make(), pictures, reference).compute()
    parts = [make(reference=known) for _ in range(2)]
    parts[0].update(pictures[:30])
    parts[1].update(pictures[30:])
    merged = parts[0].merge(parts[1])
    assert merged.compute() == pytest.approx(expected, rel=1e-12)
    assert merged.fresh().reference.count == COUNT and merged.fresh().pictures.count == 0
    with pytest.raises(InputError, match="was given"):
        merged.update_reference(reference)
    with pytest.raises(InputError, match="given its reference and the other"):
        merged.merge(make())
    other = make(reference=FeatureStatistics(extractor, keep=True).update(pictures))
    with pytest.raises(InputError, match="different references"):
        merged.merge(other)
    with pytest.raises(InputError, match="do not compare"):
        get_set_metric(name, extractor=Patches(seed=1), reference=known)


def test_the_same_set_has_no_distance() -> None:
    pictures, _ = sets()
    extractor = Patches()
    assert filled(FID(extractor), pictures, pictures.flip(0)).compute() == pytest.approx(0.0, abs=1e-9)
    # Also where the covariance is singular, in which roots of rounding errors would add up.
    with pytest.warns(UserWarning, match="singular"):
        few = filled(FID(extractor), pictures[:5], pictures[:5]).compute()
    assert few == pytest.approx(0.0, abs=1e-9)
    same = filled(FID(extractor), pictures[:1].expand(20, -1, -1, -1), pictures[:1].expand(20, -1, -1, -1))
    assert same.compute() == pytest.approx(0.0, abs=1e-9)


def test_too_few_pictures() -> None:
    pictures, reference = sets()
    extractor = Patches()
    with pytest.raises(InputError, match="'fid-patches' needs at least 2 pictures; there are 1"):
        filled(FID(extractor), pictures[:1], reference).compute()
    with pytest.raises(InputError, match="at least 2 reference pictures; there are 0"):
        filled(FID(extractor), pictures, reference[:0]).compute()
    with pytest.raises(InputError, match=r"at least 1000 pictures; there are 40.*subset_size"):
        filled(KID(extractor), pictures, reference).compute()
    with pytest.raises(InputError, match="at least 30 reference pictures; there are 29"):
        filled(KID(extractor, subset_size=30), pictures, reference[:29]).compute()
    with pytest.raises(InputError, match="at least 2 pictures; there are 1"):
        filled(KID(extractor, subset_size=None), pictures[:1], reference).compute()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled(FID(extractor), pictures[:13], reference[:13]).compute()
    with pytest.warns(UserWarning, match="12 pictures on 12 features"):
        filled(FID(extractor), pictures[:12], reference).compute()
    for wrong in ({"subsets": 0}, {"subset_size": 1}):
        with pytest.raises(InputError, match="at least 1 subset"):
            KID(extractor, **wrong)


def test_subsets_follow_the_seed() -> None:
    pictures, reference = sets()
    extractor = Patches()
    values = [filled(KID(extractor, subset_size=9, seed=s), pictures, reference).estimates() for s in (0, 0, 1)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    assert len(values[0].unique()) == 100
    state = torch.get_rng_state()
    filled(KID(extractor, subset_size=9), pictures, reference).compute()
    assert torch.equal(torch.get_rng_state(), state)


def test_names_say_network_and_resizing() -> None:
    assert get_set_metric("fid-demo").name == "fid-demo"
    assert get_set_metric("kid-demo", subset_size=5).what == "kid-demo on demo, resized to 128 x 128 by clean"
    assert FID(inception.InceptionFeatures(inception_state(), "tensorflow")).name == "fid-inception-other-tensorflow"
    assert FID("demo", resizing="tensorflow").name == "fid-demo-tensorflow"
    assert set(SET_METRICS) == {"fid", "kid", "fid-demo", "kid-demo", "identity-consistency"}
    metric = get_set_metric("fid-demo")
    assert get_set_metric(metric) is metric
    with pytest.raises(InputError, match="no options"):
        get_set_metric(metric, resizing="clean")
    with pytest.raises(InputError, match="cannot be merged"):
        metric.merge(KID("demo"))


def test_demo_features_order_what_is_seen() -> None:
    """A distance grows with noise, and held-out scenes are nearest."""
    scenes, others = (saminv.demo.sample_scenes(136, seed=seed, size=64).images for seed in (1, 2))
    noise = torch.randn(others.shape, generator=torch.Generator().manual_seed(0))
    sets_of = (others, others + 0.1 * noise, others + 0.3 * noise, others.mean(dim=1, keepdim=True).expand_as(others))
    extractor = DemoFeatures()
    reference = FeatureStatistics(extractor, keep=True).update(scenes)
    for make in (FID, functools.partial(KID, subset_size=None)):
        values = []
        for pictures in sets_of:
            metric = make(extractor, reference)
            metric.update(pictures)
            values.append(metric.compute())
        held_out, little, much, grey = values
        assert held_out < little < much and 10 * held_out < grey


def test_identity_consistency_is_equation_9() -> None:
    frames = images(6, (40, 40))
    identity = IdentitySimilarity(face_state())
    embeddings = identity.embed(frames).double().numpy()
    expected = np.mean([embeddings[i] @ embeddings[0] for i in range(1, 6)])
    metric = IdentityConsistency(identity)
    for part in frames.split(4):
        metric.update(part)
    assert metric.compute() == pytest.approx(expected, rel=1e-5)
    parts = [metric.fresh(), metric.fresh()]
    parts[0].update(frames[:1])
    parts[1].update(frames[1:])
    assert parts[0].merge(parts[1]).compute() == pytest.approx(expected, rel=1e-5)
    still = get_set_metric("identity-consistency", identity=face_state())
    still.update(frames[:1].expand(3, -1, -1, -1))
    assert still.compute() == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="at least 2 frames; there are 1"):
        parts[0].compute()
    with pytest.raises(InputError, match="no options"):
        IdentityConsistency(identity, crop="ffhq")


# Scores.


def test_scores_are_those_of_the_metrics() -> None:
    reference = images(5, (32, 32), seed=1)
    pictures = reference + 0.4 * images(5, (32, 32), seed=2)
    extractor = Patches()
    sets_of = [KID(extractor, subset_size=None), IdentityConsistency(IdentitySimilarity(face_state()))]
    seen = KID(extractor, subset_size=5)
    seen.update(pictures)
    found = score(pictures, reference, ["psnr", "mse", get_metric("ssim"), *sets_of], batch=2)
    assert list(found) == ["psnr", "mse", "ssim", "kid-patches", "identity-consistency"]
    for name in ("psnr", "mse", "ssim"):
        assert_close(found[name], get_metric(name).compare(pictures.clamp(-1, 1), reference), 1e-6)
    assert found["kid-patches"].item() == filled(sets_of[0].fresh(), pictures, reference, 2).compute()
    assert found["identity-consistency"].shape == ()
    assert all(metric.pictures.count == 0 for metric in sets_of[:1]), "metrics are left as they are"
    known = FeatureStatistics(extractor, keep=True).update(images(7, seed=9))
    given = KID(extractor, known, subset_size=None)
    assert score(pictures, reference, given)["kid-patches"] != found["kid-patches"]
    assert list(score(pictures, reference)) == ["psnr", "ssim", "mse"]


def test_scores_refuse_what_does_not_fit() -> None:
    pictures = images(2, (32, 32))
    with pytest.raises(InputError, match="one shape"):
        score(pictures, pictures[:1])
    with pytest.raises(InputError, match="there must be some"):
        score(pictures[:0], pictures[:0])
    with pytest.raises(InputError, match="Did you mean 'ssim'"):
        score(pictures, pictures, ["sssim"])
    with pytest.raises(InputError, match="named twice"):
        score(pictures, pictures, ["mse", "mse"])
    with pytest.raises(InputError, match="batch=0"):
        score(pictures, pictures, batch=0)


# The page.


def test_every_metric_has_a_row() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "metrics.md").read_text()
    rows = [re.findall(r"`([\w-]+)`", line.split("|")[1]) for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in row}
    assert set(METRICS) | set(SET_METRICS) | set(EXTRACTORS) <= named
