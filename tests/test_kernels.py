"""Kernels against their references: values, derivatives, formats, precisions, odd sizes, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import toy_stylegan2

from saminv import InputError
from saminv.ops import using
from saminv.ops._layout import FILTER_TILE, TILE, power_of_two, tiles
from saminv.ops.adam_step import adam_step
from saminv.ops.deviation import deviation
from saminv.ops.fir import blur
from saminv.ops.gaussian_prior import gaussian_prior
from saminv.ops.instance_padding import pad_ring, ring_length
from saminv.ops.layer_epilogue import layer_epilogue
from saminv.ops.lpips_head import lpips_head, unit_length
from saminv.ops.modulated_conv import modulated_conv2d
from saminv.ops.scaled_square import scaled_square
from saminv.ops.to_rgb import to_rgb
from saminv.sites import Add, Pad

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Largest difference from the float64 reference, relative to its largest number, of results and derivatives by type.

For half precision two units in the last place: a derivative through a filter is rounded twice. What is float32 beside
features of half precision is as exact as without them, unless a convolution came before.
"""
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "float16": (torch.float16, torch.float16),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float16 features": (torch.float16, torch.float32),
    "bfloat16 features": (torch.bfloat16, torch.float32),
}
"""Types of the features, and of the small operands beside them."""
FEATURES = ("x", "features")
FORMATS = (torch.contiguous_format, torch.channels_last)
SIZES = ((1, 3, 5, 7), (2, 70, 3, 2), (5, 17, 1, 1), (3, 130, 4, 9))
FEW_SIZES = ((1, 3, 5, 7), (5, 18, 3, 2))


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel is to fill is not a number before, so what it leaves out shows."""
    for owner, name in ((torch, "empty_like"), (torch, "empty"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _filled(getattr(owner, name)))


def _filled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        found = function(*args, **kwargs)
        return found.fill_(torch.nan) if found.is_floating_point() else found

    return call


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)), dtype=torch.float64)


def differences(
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor | None],
    precision: str,
    order: torch.memory_format,
    constant: Sequence[str] = ("mask",),
    impl: str = "triton",
) -> Iterator[tuple[str, float, torch.dtype]]:
    """Relative differences of the result and of each derivative from the float64 reference, with their types."""
    features, small = PRECISIONS[precision]
    kinds = {name: features if name in FEATURES else small for name in inputs}
    rounded = {name: None if x is None else _ordered(x.to(kinds[name]), order) for name, x in inputs.items()}
    results: list[list[Tensor]] = []
    got = _results(function, rounded, kinds, DEVICE, constant, impl)
    wide = dict.fromkeys(inputs, torch.float64)
    results = [_results(function, rounded, wide, "cpu", constant, "reference", got[0].dtype), got]
    names = ["result", *(name for name, x in inputs.items() if x is not None and name not in constant)]
    for name, expected, found in zip(names, *results, strict=True):
        assert found.shape == expected.shape
        error = (found.detach().cpu().double() - expected.detach()).abs().amax() / expected.detach().abs().amax()
        yield name, float(error), found.dtype


def _results(
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor | None],
    kinds: dict[str, torch.dtype],
    device: str,
    constant: Sequence[str],
    impl: str,
    rounding: torch.dtype | None = None,
) -> list[Tensor]:
    """The result of an op, and its derivatives along a gradient of the type of the result, or rounded to another."""
    given = {name: None if x is None else x.to(device, kinds[name]).detach() for name, x in inputs.items()}
    asked = [x.requires_grad_() for name, x in given.items() if x is not None and name not in constant]
    y = function(**given, impl=impl)
    gradient = draw(*y.shape, seed=1).to(rounding or y.dtype).to(device, y.dtype)
    return [y, *torch.autograd.grad(y, asked, gradient)]


def _ordered(x: Tensor, order: torch.memory_format) -> Tensor:
    return x.contiguous(memory_format=order) if x.dim() == 4 else x


def check(
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor | None],
    precision: str = "float32",
    order: torch.memory_format = torch.channels_last,
    constant: Sequence[str] = ("mask",),
    through_features: Sequence[str] = (),
    impls: Sequence[str] = ("triton", "reference"),
) -> None:
    """Hold kernels against the float64 reference, and the reference itself where it works in half precision.

    Args:
        through_features: Small operands whose derivative is computed from what was rounded to the type of the features.
    """
    features = PRECISIONS[precision][0]
    for impl in impls:
        if impl == "reference" and features == torch.float32:
            continue
        for name, error, kind in differences(function, inputs, precision, order, constant, impl):
            allowed = TOLERANCE[features if name in through_features else kind]
            assert error <= allowed, f"{impl}, {name}: {error:.1e}"


def epilogue_inputs(batch: int, channels: int, height: int, width: int) -> dict[str, Tensor | None]:
    shape = (batch, channels, height, width)
    return {
        "x": draw(*shape),
        "demodulation": draw(batch, channels).abs() + 0.5,
        "bias": draw(channels),
        "noise": draw(1, 1, height, width),
        "delta": draw(*shape, seed=2),
        "mask": draw(batch, 1, height, width).sigmoid(),
    }


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_epilogue(size, precision, order):
    def function(**given: Any) -> Tensor:
        return layer_epilogue(**given, gain=1.4, clamp=1.5)

    check(function, epilogue_inputs(*size), precision, order)
    check_lean_epilogue(epilogue_inputs(*size), precision, order)


def check_lean_epilogue(inputs: dict[str, Tensor | None], precision: str, order: Any, blur: int | None = None) -> None:
    """In half precision without the clamp, which counts what is rounded to it as well."""
    clamp = 1.5 if precision == "float32" else None

    def function(**given: Any) -> Tensor:
        return layer_epilogue(**given, gain=1.4, clamp=clamp, blur=blur)

    check(function, inputs, precision, order, through_features=["demodulation"], impls=["lean"])


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_types_of_results(kind, impl):
    x, ones, ring = torch.ones(1, 4, 2, 2, dtype=kind), torch.ones(1, 4), torch.ones(1, 4, ring_length(2, 2))
    x, ones, ring, weight, noise = (
        t.to(DEVICE) for t in (x, ones, ring, torch.ones(4, 4, 1, 1), torch.ones(1, 1, 2, 2))
    )
    image = torch.ones_like(weight[:1, :, :1, :1]).expand(1, 4, 2, 2)
    found = {
        "layer_epilogue": layer_epilogue(x, ones, ones[0], noise, x.float(), noise, impl=impl),
        "modulated_conv2d": modulated_conv2d(x, weight, ones, noise=noise, impl=impl),
        "without demodulation": modulated_conv2d(x, weight, ones, noise=noise, demodulate=False, impl=impl),
        "pad_ring": pad_ring(x, ring, impl=impl),
        "blur": blur(x, impl=impl),
        "to_rgb": to_rgb(x, weight, ones, ones[0], impl=impl),
        "to_rgb on float32": to_rgb(x, weight, ones, ones[0], image, impl=impl),
        "lpips_head": lpips_head(x, x.float(), ones[0], impl=impl),
        "scaled_square": scaled_square(x, ones[0], impl=impl),
    }
    wide = ("to_rgb on float32", "lpips_head", "scaled_square")
    assert {name: y.dtype for name, y in found.items()} == {
        name: torch.float32 if name in wide else kind for name in found
    }


@pytest.mark.parametrize("without", ["noise", "delta mask", "mask", "bias", "bias noise delta mask"])
def test_epilogue_of_less(without):
    inputs = epilogue_inputs(2, 5, 4, 3) | dict.fromkeys(without.split())
    check(layer_epilogue, inputs, impls=("lean", "triton"))


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("padding", [0, 1])
def test_epilogue_with_a_filter(padding, precision, order):
    def function(**given: Any) -> Tensor:
        return layer_epilogue(**given, gain=1.4, clamp=1.5, blur=padding)

    for batch, channels, height, width in FEW_SIZES:
        more = 3 - 2 * padding
        inputs = epilogue_inputs(batch, channels, height, width)
        inputs["x"] = draw(batch, channels, height + more, width + more)
        check(function, inputs, precision, order)
        check_lean_epilogue(inputs, precision, order, padding)


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("taps", "padding"), [((1, 3, 3, 1), (1, 1)), ((1, 2, 3, 4, 5), (3, 2)), ((1, 2), (0, -1))])
def test_blur(taps, padding, precision, order):
    def function(**given: Any) -> Tensor:
        return blur(**given, taps=taps, gain=2.5, padding=padding)

    for batch, channels, height, width in FEW_SIZES:
        check(function, {"x": draw(batch, channels, height + 4, width + 4)}, precision, order)


def test_blur_is_differentiable_twice():
    x = draw(1, 2, 5, 5).float().to(DEVICE).requires_grad_()
    seconds = []
    for impl in ("reference", "triton"):
        [first] = torch.autograd.grad(blur(x, impl=impl).pow(3).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.pow(2).sum(), x)[0])
    assert float((seconds[1] - seconds[0]).abs().max() / seconds[0].abs().max()) < 1e-5


def test_epilogue_with_noise_per_image():
    inputs = epilogue_inputs(3, 5, 4, 3) | {"noise": draw(3, 1, 4, 3)}
    check(layer_epilogue, inputs, impls=("lean", "triton"))


def test_epilogue_keeps_what_is_not_a_number():
    x = torch.tensor([torch.nan, 5.0, -5.0], device=DEVICE).reshape(1, 1, 1, 3)
    ones = torch.ones(1, 1, device=DEVICE)
    y = layer_epilogue(x, ones, ones[0] * 0, clamp=0.5, impl="triton").flatten().tolist()
    assert y[0] != y[0] and y[1:] == [0.5, -0.5]


def test_epilogue_is_differentiable_twice():
    inputs = {
        name: x.float().to(DEVICE).requires_grad_(name != "mask") for name, x in epilogue_inputs(2, 3, 2, 2).items()
    }
    seconds = []
    for impl in ("reference", "triton"):
        y = layer_epilogue(**inputs, gain=2.0, impl=impl)
        tensors = [inputs[name] for name in ("x", "demodulation", "bias", "noise", "delta")]
        firsts = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), tensors))
    for expected, got in zip(*seconds):
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


def test_epilogue_has_no_kernel_for_learnt_masks():
    inputs = {name: x.float().to(DEVICE) for name, x in epilogue_inputs(1, 2, 2, 2).items()}
    inputs["mask"].requires_grad_()
    with pytest.raises(InputError, match="no Triton kernel"):
        layer_epilogue(**inputs, impl="triton")
    assert layer_epilogue(**inputs).requires_grad


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("with_skip", [False, True])
def test_to_rgb(with_skip, clamp, precision, order):
    def function(**given: Any) -> Tensor:
        return to_rgb(**given, clamp=clamp)

    for batch, channels, height, width in ((1, 3, 5, 7), (5, 70, 3, 2), (2, 18, 9, 9)):
        inputs = {
            "x": draw(batch, channels, height, width),
            "weight": draw(3, channels, 1, 1),
            "styles": draw(batch, channels) / channels**0.5,
            "bias": draw(3),
            "skip": draw(batch, 3, height, width) if with_skip else None,
        }
        check(function, inputs, precision, order)


def test_to_rgb_is_differentiable_twice():
    shapes = {"x": (2, 5, 3, 3), "weight": (3, 5, 1, 1), "styles": (2, 5), "bias": (3,), "skip": (2, 3, 3, 3)}
    inputs = {name: draw(*shape).float().to(DEVICE).requires_grad_() for name, shape in shapes.items()}
    # Not without gaps, so it has to be copied on the way.
    inputs["x"] = draw(2, 5, 6, 3).float().to(DEVICE)[:, :, ::2].requires_grad_()
    seconds = []
    for impl in ("reference", "triton"):
        y = to_rgb(**inputs, clamp=3.0, impl=impl)
        firsts = torch.autograd.grad(y.pow(3).sum(), list(inputs.values()), create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), list(inputs.values())))
    for expected, got in zip(*seconds):
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_lpips_head(precision, order):
    for size in SIZES:
        inputs = {"features": draw(*size), "target": unit_length(draw(*size, seed=2)), "weights": draw(size[1]).abs()}
        check(lpips_head, inputs, precision, order, constant=("target", "weights"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lpips_head_sums_in_float32(precision):
    kind, small = PRECISIONS[precision]
    # The square of 300 is no half-precision number.
    features = torch.full((1, 8, 2, 2), 300.0, dtype=kind, device=DEVICE)
    target, weights = torch.zeros_like(features, dtype=small), torch.ones(8, dtype=small, device=DEVICE)
    assert float((unit_length(features).square().sum(dim=1) - 1).abs().max()) < 1e-5
    for impl in ("reference", "triton"):
        found = lpips_head(features, target, weights, impl=impl)
        assert found.dtype == torch.float32 and float((found - 1).abs().max()) < 1e-5


def test_lpips_head_of_features_that_are_zero():
    # Rectified networks give vectors of zeros in flat regions.
    features = torch.zeros(1, 4, 1, 1, device=DEVICE, requires_grad=True)
    target = unit_length(draw(1, 4, 1, 1).float()).to(DEVICE)
    found = []
    for impl in ("reference", "triton"):
        y = lpips_head(features, target, torch.ones(4, device=DEVICE), impl=impl)
        found.append([y.detach(), *torch.autograd.grad(y.sum(), features)])
    for expected, got in zip(*found):
        assert bool(torch.isfinite(expected).all()) and torch.allclose(got, expected, rtol=1e-5)


def test_lpips_head_is_differentiable_twice():
    features = draw(1, 3, 2, 2).float().to(DEVICE).requires_grad_()
    target, weights = unit_length(draw(1, 3, 2, 2, seed=2).float()).to(DEVICE), torch.ones(3, device=DEVICE)
    seconds = []
    for impl in ("reference", "triton"):
        y = lpips_head(features, target, weights, impl=impl)
        [first] = torch.autograd.grad(y.square().sum(), features, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), features)[0])
    assert float((seconds[1] - seconds[0]).abs().max() / seconds[0].abs().max()) < 1e-5


def test_lpips_head_has_no_kernel_for_learnt_weights_or_targets():
    features, weights = torch.ones(1, 2, 2, 2, device=DEVICE), torch.ones(2, device=DEVICE)
    with pytest.raises(InputError, match="no Triton kernel"):
        lpips_head(features, features, weights.requires_grad_(), impl="triton")
    with pytest.raises(InputError, match="do not go together"):
        lpips_head(features, features[:, :1], weights)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("more", ["", "noise", "ring", "plain"])
def test_modulated_conv2d(up, more, precision):
    batch, inputs, outputs, side = 2, 5, 4, 6
    given = {"x": draw(batch, inputs, side, side), "weight": draw(outputs, inputs, 3, 3), "styles": draw(batch, inputs)}
    if more == "noise":
        given["noise"] = draw(batch, 1, up * side, up * side)
    if more == "ring":
        shape = (outputs, ring_length(2 * side + 1, 2 * side + 1)) if up == 2 else (inputs, ring_length(side, side))
        given["ring"] = draw(batch, *shape)

    def function(**tensors: Any) -> Tensor:
        return modulated_conv2d(**tensors, up=up, demodulate=more != "plain")

    check(function, given, precision, through_features=("weight", "styles", "ring"))
    check(
        function, given, precision, constant=["weight"], through_features=("styles", "ring"), impls=("lean", "triton")
    )


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_pad_ring(precision, order):
    for batch, channels, height, width in SIZES:
        ring = draw(batch, channels, ring_length(height, width))
        inputs = {"x": draw(batch, channels, height, width), "ring": ring}
        if "features" in precision:
            # A ring that is rounded before is copied as exactly as one of the type of the features.
            inputs["ring"] = ring.to(PRECISIONS[precision][0]).double()
        for name, error, _kind in differences(pad_ring, inputs, precision, order):
            # Numbers are copied, and each of them once.
            assert error == 0, name


def test_pad_ring_is_differentiable_twice():
    inputs = [x.float().to(DEVICE).requires_grad_() for x in (draw(1, 2, 3, 4), draw(1, 2, ring_length(3, 4)))]
    seconds = []
    for impl in ("reference", "triton"):
        firsts = torch.autograd.grad(pad_ring(*inputs, impl=impl).pow(3).sum(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), inputs))
    for expected, got in zip(*seconds):
        assert torch.allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("with_units", [False, True])
def test_scaled_square(with_units, precision, order):
    for size in SIZES:
        inputs = {"x": draw(*size), "units": draw(size[1]).abs() + 0.1 if with_units else None}
        check(scaled_square, inputs, precision, order, constant=("units",))


def test_scaled_square_sums_in_float32():
    x = torch.full((1, 4, 64, 64), 8.0, dtype=torch.float16, device=DEVICE)
    for impl in ("reference", "triton"):
        found = scaled_square(x, impl=impl)
        # It is more than the largest half-precision number.
        assert found.dtype == torch.float32 and found.tolist() == [64.0 * 4 * 64 * 64]


def test_scaled_square_is_differentiable_twice():
    x = draw(2, 3, 2, 2).float().to(DEVICE).requires_grad_()
    seconds = []
    for impl in ("reference", "triton"):
        [first] = torch.autograd.grad(scaled_square(x, impl=impl).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert torch.allclose(*seconds, rtol=1e-5)


def test_scaled_square_of_bad_input():
    x = torch.ones(1, 2, 2, 2, device=DEVICE)
    with pytest.raises(InputError, match="its units"):
        scaled_square(x, torch.ones(3, device=DEVICE))
    with pytest.raises(InputError, match="no Triton kernel"):
        scaled_square(x, torch.ones(2, device=DEVICE, requires_grad=True), impl="triton")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("squared", [True, False])
def test_deviation(squared, precision):
    for shape in ((1, 3, 5), (3, 14, 70), (2, 1, 4)):

        def function(x: Tensor, impl: str) -> Tensor:
            return deviation(x, squared=squared, impl=impl)

        if shape[1] > 1:
            check(function, {"x": draw(*shape)}, precision, impls=("triton", "lean"))
        else:
            assert function(draw(*shape).float().to(DEVICE), "triton").count_nonzero() == 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 14, 70)])
def test_gaussian_prior(shape, precision):
    root, centre = draw(shape[2], shape[2]), draw(shape[2])

    def function(x: Tensor, impl: str) -> Tensor:
        return gaussian_prior(x, centre.to(x.device), (root @ root.t()).to(x.device), impl=impl)

    # The gradient is rounded to the type of the styles, and nothing else is.
    for name, error, kind in differences(function, {"x": draw(*shape)}, precision, FORMATS[0]):
        assert error <= (1e-12 if kind == torch.float64 else TOLERANCE[kind]), name


def test_regularisers_are_differentiable_twice():
    x, eye = draw(2, 3, 4).float().to(DEVICE).requires_grad_(), torch.eye(4, dtype=torch.float64, device=DEVICE)
    for function in (
        lambda impl: gaussian_prior(x, eye[0], eye, impl=impl),
        lambda impl: deviation(x, squared=False, impl=impl),
    ):
        seconds = []
        for impl in ("reference", "triton"):
            [first] = torch.autograd.grad(function(impl).square().sum(), x, create_graph=True)
            seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
        assert torch.allclose(*seconds, rtol=1e-5)


def adam_inputs(*shape: int) -> dict[str, Tensor]:
    batch = shape[0]
    return {
        "x": draw(*shape),
        "gradient": draw(*shape, seed=1),
        "first": draw(*shape, seed=2) / 9,
        "second": draw(*shape, seed=3).square() / 9,
        "rate": torch.tensor([0.1, 0.0, 0.3, 0.2, 0.1], dtype=torch.float64)[:batch],
        "second_bias": torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9], dtype=torch.float64)[:batch],
    }


def adam_results(inputs: dict[str, Tensor], impl: str, dtype: torch.dtype, **more: Any) -> list[Tensor]:
    given = {name: x.clone(memory_format=torch.preserve_format).to(DEVICE, dtype) for name, x in inputs.items()}
    more = {name: x.to(DEVICE, dtype) if isinstance(x, Tensor) else x for name, x in more.items()}
    x = given.pop("x", None)
    result = adam_step(x, **given, **more, impl=impl)
    assert x is None or result is x
    return [result, given["first"], given["second"]]


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("shape", [*SIZES, (3, 4, 6), (2, 7)])
def test_adam_step(shape, order):
    inputs = {name: _ordered(x, order) for name, x in adam_inputs(*shape).items()}
    mask = (draw(shape[0], 1, *shape[2:]) > 0).double()
    channels = draw(*shape[1:2], *[1] * (len(shape) - 2)).abs() if len(shape) > 2 else 0.5
    for more in ({}, {"scale": channels}, {"scale": 2.0, "eps": 0.1, "betas": (0.5, 0.9)}, {"mask": mask}):
        if "mask" in more and len(shape) != 4:
            continue
        expected = adam_results(inputs, "reference", torch.float32, **more)
        for a, b in zip(adam_results(inputs, "triton", torch.float32, **more), expected):
            assert float((a - b).abs().max() / b.abs().max()) <= TOLERANCE[torch.float32]


def test_adam_step_without_variables_is_the_change():
    inputs = adam_inputs(3, 4, 5, 5)
    changed = adam_results(inputs, "triton", torch.float32)[0]
    x = inputs.pop("x")
    for impl in ("reference", "triton"):
        move = adam_results(inputs, impl, torch.float32)[0]
        assert torch.allclose(x.float().to(DEVICE) - move, changed, atol=1e-6)


def test_adam_step_does_not_touch_what_is_outside_of_the_mask():
    inputs, mask = adam_inputs(2, 3, 70, 5), torch.zeros(2, 1, 70, 5)
    mask[0, :, 65:] = 0.3
    inputs["gradient"][mask.expand(2, 3, 70, 5) == 0] = torch.nan
    before = [inputs[name].float().to(DEVICE) for name in ("x", "first", "second")]
    for impl in ("reference", "triton"):
        after = adam_results(inputs, impl, torch.float32, mask=mask)
        for old, new in zip(before, after):
            where = (mask.expand(2, 3, 70, 5) == 0).to(DEVICE)
            assert torch.equal(old[where], new[where]) and not torch.equal(old, new)


def test_adam_step_of_what_the_kernel_cannot_read_is_the_reference():
    inputs = adam_inputs(2, 3, 4, 4)
    scale = draw(3, 4, 1).abs()
    for a, b in zip(*(adam_results(inputs, impl, torch.float32, scale=scale) for impl in ("reference", "triton"))):
        assert torch.equal(a, b)


def test_adam_step_of_bad_input():
    inputs = adam_inputs(2, 3, 4, 4)
    with pytest.raises(InputError, match="need one shape"):
        adam_step(**inputs | {"first": inputs["first"][:1]})
    with pytest.raises(InputError, match="a number per image"):
        adam_step(**inputs | {"rate": inputs["rate"][:1]})
    with pytest.raises(InputError, match="The mask must be"):
        adam_step(**inputs, mask=torch.ones(2, 3, 4, 4))


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_a_generator_of_kernels(architecture):
    generator = toy_stylegan2(architecture=architecture, resolution=16).to(DEVICE)
    styles = generator.mapping(generator.sample_z(2, seed=1)).requires_grad_()
    deltas = {name: draw(2, *generator.sites[name].shape).float().to(DEVICE).requires_grad_() for name in ("F2", "F3")}
    mask = draw(2, 1, *generator.sites["F3"].shape[1:]).sigmoid().float().to(DEVICE)
    ring = draw(2, *generator.sites["P4"].shape).float().to(DEVICE).requires_grad_()
    taps = [Add("F2", deltas["F2"]), Add("F3", deltas["F3"], mask), Pad("P4", ring)]
    found = []
    for impl in ("reference", "triton"):
        with using(impl):
            image = generator.synthesis(styles, taps)
            found.append([image, *torch.autograd.grad(image.square().sum(), [styles, *deltas.values(), ring])])
    for expected, got in zip(*found):
        assert float((got - expected).detach().abs().max() / expected.detach().abs().max()) < 2e-5


def test_using_no_implementation():
    with pytest.raises(InputError, match="allowed are auto, reference, lean, triton"), using("cuda"):
        pass


@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("size", [*SIZES, (2, 512, 64, 64), (1, 32, 1024, 1024), (1, 3, 1024, 1024), (1, 512, 4, 4)])
@pytest.mark.parametrize("numbers", [TILE, FILTER_TILE])
def test_tiles_cover_a_feature(numbers, size, order):
    grid = tiles(size, order, numbers)
    batch, channels, height, width = size
    assert grid.shape[0] * grid.block_p >= height * width > (grid.shape[0] - 1) * grid.block_p
    assert grid.shape[1] * grid.block_c >= channels > (grid.shape[1] - 1) * grid.block_c
    assert grid.shape[2] == batch and grid.block_p * grid.block_c <= numbers
    assert grid.block_p == power_of_two(grid.block_p) and grid.block_c == power_of_two(grid.block_c)
