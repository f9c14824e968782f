"""Elementary image ops: parity with the published ops, derivatives, equality of the fast paths, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from helpers import GOLDEN_DIRS, Golden, assert_close
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

from saminv._errors import InputError
from saminv.generators.stylegan2 import ModulatedLayer
from saminv.ops import _dispatch as dispatch
from saminv.ops import _layout, using
from saminv.ops._dispatch import choose
from saminv.ops.bias_act import ACTIVATIONS, bias_act
from saminv.ops.conv2d_resample import conv2d_resample
from saminv.ops.deviation import deviation
from saminv.ops.filtered_lrelu import design_lowpass_filter, filtered_lrelu
from saminv.ops.fir import blur, upsample_rgb
from saminv.ops.gaussian_prior import gaussian_prior
from saminv.ops.instance_padding import ring_length
from saminv.ops.layer_epilogue import layer_epilogue
from saminv.ops.modulated_conv import lean, modulated_conv2d
from saminv.ops.modulated_conv_sg3 import modulated_conv_sg3
from saminv.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

# Largest relative difference by dtype: of the output, and of its gradients.
TOLERANCE = {torch.float32: (2e-6, 5e-6), torch.float64: (1e-12, 1e-12)}
FAMILIES: tuple[str, ...] = (
    *("upfirdn2d", "upsample2d", "downsample2d", "filter2d", "setup_filter"),
    *("conv2d_resample", "bias_act", "filtered_lrelu", "sg3_modconv", "lowpass/"),
)
# Filters are float32 constants in both precisions.
FILTERS = ("f", "fu", "fd")
DTYPES = {"out": torch.float32, "out_64": torch.float64}


@cache
def op_golden(name: str) -> Golden | None:
    """The full golden file of an op where it is, else the selection in this repository."""
    for stem in (name, f"{name}_small"):
        for folder in GOLDEN_DIRS:
            if (folder / f"{stem}.npz").is_file():
                return Golden(folder / f"{stem}.npz")
    return None


def cases(name: str, prefix: str) -> list[Any]:
    """Test parameters: the cases of a golden file whose name starts with ``prefix``."""
    data = op_golden(name)
    found = [case for case in data.meta["cases"] if case.startswith(prefix)] if data else []
    return found or [pytest.param("", marks=pytest.mark.skip(reason=f"no golden data {name}.npz"))]


def check_parity(name: str, case: str, function: Callable[..., Tensor], renamed: dict[str, str] | None = None) -> None:
    """Compare output and all gradients of ``function(**inputs, **arguments)``, in float32 and float64."""
    data = op_golden(name)
    assert data is not None
    arguments = {k: v for k, v in data.meta["cases"][case].items() if k not in ("filter", "k")}
    for part, dtype in DTYPES.items():
        inputs = {k: v if k in FILTERS else v.to(dtype) for k, v in data.under(f"{case}/in/").items()}
        gradient, expected = inputs.pop("gy"), data.under(f"{case}/{part}/")
        wanted = [k.removeprefix("g_") for k in expected if k.startswith("g_")]
        for key in wanted:
            inputs[key].requires_grad_()
        y = function(**{(renamed or {}).get(k, k): v for k, v in inputs.items()}, **arguments)
        y_tolerance, g_tolerance = TOLERANCE[dtype]
        assert_close(y, expected["y"], y_tolerance, f"{case}/{part}/y")
        gradients = torch.autograd.grad(y, [inputs[k] for k in wanted], gradient)
        for key, got in zip(wanted, gradients, strict=True):
            assert_close(got, expected[f"g_{key}"], g_tolerance, f"{case}/{part}/g_{key}")


def double(*shape: int, seed: int = 0) -> Tensor:
    """Normal float64 numbers that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def check_derivatives(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """First and second derivatives against finite differences."""
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


class TestParity:
    @pytest.mark.parametrize("case", cases("ops_upfirdn2d", "upfirdn2d"))
    def test_upfirdn2d(self, case: str) -> None:
        check_parity("ops_upfirdn2d", case, with_optional_filter(upfirdn2d))

    @pytest.mark.parametrize("case", cases("ops_upfirdn2d", "upsample2d"))
    def test_upsample2d(self, case: str) -> None:
        check_parity("ops_upfirdn2d", case, upsample2d)

    @pytest.mark.parametrize("case", cases("ops_upfirdn2d", "downsample2d"))
    def test_downsample2d(self, case: str) -> None:
        check_parity("ops_upfirdn2d", case, downsample2d)

    @pytest.mark.parametrize("case", cases("ops_upfirdn2d", "filter2d"))
    def test_filter2d(self, case: str) -> None:
        check_parity("ops_upfirdn2d", case, filter2d)

    @pytest.mark.parametrize("case", cases("ops_upfirdn2d", "setup_filter"))
    def test_setup_filter(self, case: str) -> None:
        data = op_golden("ops_upfirdn2d")
        assert data is not None
        arguments = dict(data.meta["cases"][case])
        assert_close(setup_filter(arguments.pop("f"), **arguments), data[case], 1e-7, case)

    @pytest.mark.parametrize("case", cases("ops_conv2d_resample", ""))
    def test_conv2d_resample(self, case: str) -> None:
        check_parity("ops_conv2d_resample", case, conv2d_resample, {"w": "weight"})

    @pytest.mark.parametrize("case", cases("ops_bias_act", ""))
    def test_bias_act(self, case: str) -> None:
        act = case.split("_")[2]
        check_parity("ops_bias_act", case, lambda **inputs: bias_act(act=act, **inputs))

    @pytest.mark.parametrize("case", cases("ops_stylegan3", "filtered_lrelu"))
    def test_filtered_lrelu(self, case: str) -> None:
        check_parity("ops_stylegan3", case, filtered_lrelu)

    @pytest.mark.parametrize("case", cases("ops_stylegan3", "sg3_modconv"))
    def test_modulated_conv_sg3(self, case: str) -> None:
        def published(**inputs: Any) -> Tensor:
            return modulated_conv_sg3(normalisation="batch", **inputs)

        check_parity("ops_stylegan3", case, published, {"w": "weight", "s": "styles"})

    @pytest.mark.parametrize("case", cases("ops_stylegan3", "lowpass/"))
    @pytest.mark.parametrize("kind", ["sep", "radial"])
    def test_lowpass_design(self, case: str, kind: str) -> None:
        data = op_golden("ops_stylegan3")
        assert data is not None
        taps = design_lowpass_filter(**data.meta["cases"][case], radial=kind == "radial")
        assert taps is not None
        assert_close(taps, data[f"{case}/{kind}"], 2e-6, f"{case}/{kind}")


def with_optional_filter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cases without a filter store none: pass None."""
    return lambda x, f=None, **arguments: function(x, f, **arguments)


class TestDerivatives:
    """Every op claims derivatives of every order with respect to its inputs."""

    @pytest.mark.parametrize(
        "taps", [None, [[1.0, 2.0, 5.0], [3.0, 1.0, 4.0]], [1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 2.0, 1.0]]
    )
    @pytest.mark.parametrize("padding", [3, (-1, 6, 3, 5)])
    def test_upfirdn2d(self, taps: Any, padding: Any) -> None:
        f = None if taps is None else setup_filter(taps)
        check_derivatives(lambda x: upfirdn2d(x, f, up=(2, 3), down=2, padding=padding, gain=1.5), double(1, 2, 3, 4))

    @pytest.mark.parametrize("up, down, size", [(1, 1, 3), (2, 1, 3), (1, 2, 3), (1, 2, 1), (2, 2, 3)])
    def test_conv2d_resample(self, up: int, down: int, size: int) -> None:
        f = setup_filter([1, 3, 3, 2])
        check_derivatives(
            lambda x, w: conv2d_resample(x, w, f, up=up, down=down, padding=size // 2),
            double(1, 2, 4, 3),
            double(3, 2, size, size),
        )

    @pytest.mark.parametrize("act", ACTIVATIONS)
    def test_bias_act(self, act: str) -> None:
        check_derivatives(lambda x, b: bias_act(x, b, act=act, gain=1.3, clamp=1.1), double(2, 3, 2, 2), double(3))

    def test_filtered_lrelu(self) -> None:
        fu, fd = design_lowpass_filter(6, 1.0, 1.5, 4.0), design_lowpass_filter(4, 1.0, 1.5, 4.0, radial=True)
        check_derivatives(
            lambda x, b: filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=4, clamp=0.8), double(1, 2, 3, 3), double(2)
        )

    @pytest.mark.parametrize("demodulate", [True, False])
    @pytest.mark.parametrize("normalisation", ["sample", "batch"])
    def test_modulated_conv_sg3(self, demodulate: bool, normalisation: str) -> None:
        check_derivatives(
            lambda x, w, s, g: modulated_conv_sg3(
                x, w, s, demodulate=demodulate, padding=1, input_gain=g, normalisation=normalisation
            ),
            double(2, 2, 3, 3),
            double(2, 2, 2, 2),
            double(2, 2),
            double(2),
        )

    @pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 5), (2,)])
    @pytest.mark.parametrize("padding", [(1, 1), (-1, 3), (5, 2)])
    def test_blur(self, taps: tuple[int, ...], padding: tuple[int, int]) -> None:
        check_derivatives(lambda x: blur(x, taps, 1.7, padding), double(1, 2, 4, 5))

    @pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 5), (1, 2, 3, 4, 5, 6)])
    def test_upsample_rgb(self, taps: tuple[int, ...]) -> None:
        check_derivatives(lambda x: upsample_rgb(x, taps), double(1, 2, 3, 2))


class TestFastFilters:
    """The fast paths give what upfirdn2d gives."""

    @settings(max_examples=30, deadline=None)
    @given(
        taps=st.lists(st.integers(1, 9), min_size=1, max_size=6),
        gain=st.floats(0.25, 4),
        padding=st.tuples(st.integers(-2, 6), st.integers(-2, 6)),
        seed=st.integers(0, 99),
    )
    def test_blur(self, taps: list[int], gain: float, padding: tuple[int, int], seed: int) -> None:
        x = double(2, 3, 10, 11, seed=seed)
        f = setup_filter(torch.tensor(taps, dtype=torch.float64), separable=False, normalize=False).double()
        expected = upfirdn2d(x, f, padding=(*padding, *padding), gain=gain / sum(taps) ** 2)
        got = blur(x, taps, gain, padding)
        assert_close(got, expected.detach(), 1e-12, "blur")
        weight = torch.rand_like(expected)
        got_gradient, expected_gradient = (torch.autograd.grad(y, x, weight)[0] for y in (got, expected))
        assert_close(got_gradient, expected_gradient, 1e-12, "gradient")

    @settings(max_examples=20, deadline=None)
    @given(taps=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
    def test_upsample_rgb(self, taps: list[int], seed: int) -> None:
        x = double(2, 3, 5, 4, seed=seed)
        f = setup_filter(taps, separable=False, normalize=False).double()
        expected = upsample2d(x, f, gain=1 / sum(taps) ** 2)
        assert_close(upsample_rgb(x, taps), expected.detach(), 1e-12, "upsample_rgb")

    @pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1)])
    def test_float32_and_memory_format(self, taps: tuple[int, ...]) -> None:
        x = double(2, 8, 9, 9).detach().float().contiguous(memory_format=torch.channels_last)
        f = setup_filter(taps)
        blurred, doubled = blur(x, taps, 4.0, (1, 1)), upsample_rgb(x, taps)
        assert_close(blurred, upfirdn2d(x, f, padding=1, gain=4), 2e-6, "blur")
        assert_close(doubled, upsample2d(x, f), 2e-6, "upsample_rgb")
        assert blurred.is_contiguous(memory_format=torch.channels_last)
        assert doubled.is_contiguous(memory_format=torch.channels_last)

    def test_differentiable_after_inference_mode(self) -> None:
        # The kernels are cached: those made under inference mode must serve a later differentiable call.
        taps = (1, 5, 7, 2)
        x = double(1, 3, 6, 6)
        with torch.inference_mode():
            blur(x, taps), upsample_rgb(x, taps)
        (gradient,) = torch.autograd.grad(upsample_rgb(blur(x, taps), taps).sum(), x)
        assert torch.isfinite(gradient).all()


class TestMeaning:
    def test_upfirdn2d_of_an_impulse_is_the_filter(self) -> None:
        x = torch.zeros(1, 1, 1, 1)
        x[...] = 2.0
        f = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        response = upfirdn2d(x, f, padding=(2, 2, 1, 1))
        torch.testing.assert_close(response[0, 0], 2 * f)
        torch.testing.assert_close(upfirdn2d(x, f, padding=(2, 2, 1, 1), flip_filter=True)[0, 0], 2 * f.flip((0, 1)))

    def test_resampling_keeps_a_constant_image_inside(self) -> None:
        x = torch.full((1, 2, 16, 16), 0.7)
        f = setup_filter([1, 3, 3, 1])
        for y in (upsample2d(x, f), downsample2d(x, f), filter2d(x, f), upsample_rgb(x), blur(x, gain=1.0)):
            torch.testing.assert_close(y[..., 2:-2, 2:-2], torch.full_like(y[..., 2:-2, 2:-2], 0.7))

    def test_conv2d_resample_is_its_definition(self) -> None:
        x, weight, f = double(2, 4, 7, 6).detach(), double(6, 2, 3, 3).detach(), setup_filter([1, 2, 4, 1]).double()
        large = upsample2d(x, f, up=3, padding=1)
        large = torch.nn.functional.conv2d(large, weight, groups=2)
        expected = downsample2d(large, f, down=2)
        got = conv2d_resample(x, weight, f, up=3, down=2, padding=1, groups=2)
        # The definition pads once more between the steps: compare away from the border.
        assert got.shape == expected.shape
        assert_close(got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], 1e-12)

    def test_modulated_conv_sg3_of_a_batch_is_that_of_its_images(self) -> None:
        x, weight, styles = double(3, 4, 5, 5).detach(), double(2, 4, 3, 3).detach(), double(3, 4).detach()
        batch = modulated_conv_sg3(x, weight, styles, padding=2)
        alone = torch.cat([modulated_conv_sg3(x[i : i + 1], weight, styles[i : i + 1], padding=2) for i in range(3)])
        assert_close(batch, alone, 1e-14)

    @pytest.mark.parametrize("case", cases("ops_stylegan3", "sg3_modconv_demod1"))
    def test_modulated_conv_sg3_per_sample_is_the_published_one_up_to_epsilon(self, case: str) -> None:
        data = op_golden("ops_stylegan3")
        assert data is not None
        inputs = {k: v.double() for k, v in data.under(f"{case}/in/").items() if k != "gy"}
        y = modulated_conv_sg3(
            inputs["x"],
            inputs["w"],
            inputs["s"],
            input_gain=inputs.get("input_gain"),
            **data.meta["cases"][case],
        )
        assert_close(y, data[f"{case}/out_64/y"], 1e-8, case)

    def test_lowpass_design(self) -> None:
        assert design_lowpass_filter(1, 1.0, 1.0, 4.0) is None
        for numtaps in (5, 6, 12):
            taps = design_lowpass_filter(numtaps, 2.0, 3.0, 16.0)
            radial = design_lowpass_filter(numtaps, 2.0, 3.0, 16.0, radial=True)
            assert taps is not None and radial is not None
            assert math.isclose(float(taps.sum()), 1, rel_tol=1e-6)
            assert math.isclose(float(radial.sum()), 1, rel_tol=1e-6)
            torch.testing.assert_close(taps, taps.flip(0))
            torch.testing.assert_close(radial, radial.t())
            assert torch.isfinite(radial).all()

    def test_lowpass_design_halves_the_amplitude_at_the_cutoff(self) -> None:
        taps = design_lowpass_filter(64, 2.0, 1.0, 16.0)
        assert taps is not None
        phase = 2 * math.pi * 2.0 / 16.0 * torch.arange(64)
        response = torch.complex((taps * phase.cos()).sum(), (taps * phase.sin()).sum()).abs()
        assert abs(float(response) - 0.5) < 0.01

    def test_bias_act_adds_on_the_last_dimension_of_a_matrix(self) -> None:
        x, b = torch.zeros(4, 3), torch.tensor([1.0, -1.0, 2.0])
        expected = torch.tensor([1.0, -0.2, 2.0]) * math.sqrt(2)
        torch.testing.assert_close(bias_act(x, b, dim=-1, act="lrelu"), expected.expand(4, 3))


class TestLean:
    """The lean forms are the references with another backward."""

    @pytest.fixture(autouse=True, params=[(1, 1), (1 << 19, lean.WIDE)], ids=["large", "small"])
    def sizes(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is done with features that are large and wide, and with those that are not."""
        band, wide = request.param
        monkeypatch.setattr(_layout, "BAND", band)
        monkeypatch.setattr(lean, "WIDE", wide)

    @pytest.mark.parametrize("padding", [None, 0, 1])
    @pytest.mark.parametrize("slope", [0.0, 0.2])
    @pytest.mark.parametrize("change", ["none", "everywhere", "masked"])
    def test_epilogue(self, change: str, slope: float, padding: int | None) -> None:
        more = 0 if padding is None else 3 - 2 * padding
        inputs = [double(2, 2, 4 + more, 3 + more), double(2, 2), double(2), double(1, 1, 4, 3)]
        inputs += [] if change == "none" else [double(2, 2, 4, 3)]
        mask = [double(2, 1, 4, 3).detach().sigmoid()] if change == "masked" else []
        settings = {"gain": 1.3, "clamp": 2.1, "slope": slope, "blur": padding}
        compare_lean(lambda impl: lambda *given: layer_epilogue(*given, *mask, **settings, impl=impl), *inputs)

    @pytest.mark.parametrize("up, side", [(1, 1), (1, 3), (2, 1), (2, 3)])
    @pytest.mark.parametrize("more", ["plain", "demodulate", "ring"])
    def test_modulated_conv2d(self, more: str, up: int, side: int) -> None:
        weight = double(3, 2, side, side).detach()
        inputs = [double(2, 2, 4, 3), double(2, 2)]
        if more == "ring":
            inputs.append(double(2, 2, ring_length(4, 3)) if up == 1 else double(2, 3, ring_length(9, 7)))
            if side == 1:
                pytest.skip("a ring is for kernels of 3x3")

        def function(impl: str) -> Callable[..., Tensor]:
            return lambda x, styles, ring=None: modulated_conv2d(
                x, weight, styles, up=up, ring=ring, demodulate=more == "demodulate", impl=impl
            )

        compare_lean(function, *inputs)

    @pytest.mark.parametrize("up", [1, 2])
    def test_layer_in_float32(self, up: int) -> None:
        torch.manual_seed(0)
        layer = ModulatedLayer(24, 16, 32, 8, up, 3.0).requires_grad_(False)
        layer.noise_strength.fill_(0.3)
        x, w = torch.randn(2, 24, 32 // up, 32 // up, requires_grad=True), torch.randn(2, 8, requires_grad=True)
        noise, found, kept = layer.noise_const[None, None], {}, {}
        for impl in ("reference", "lean"):
            kept[impl] = seen = {}

            def keep(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
                seen[tensor.data_ptr()] = tensor.numel()
                return tensor

            with using(impl), saved_tensors_hooks(keep, lambda tensor: tensor):
                y = layer(x, w, noise)
            for shared in (x, y, layer.weight, noise):
                seen.pop(shared.data_ptr(), None)
            found[impl] = [y, *torch.autograd.grad(y.square().sum(), [x, w])]
        for got, expected in zip(found["lean"], found["reference"], strict=True):
            assert_close(got, expected.detach(), TOLERANCE[torch.float32][1])
        # Beside what comes in and goes out, nothing of the size of a feature is kept.
        assert max(kept["lean"].values()) < y.numel() <= max(kept["reference"].values())

    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize(
        "up, down, padding, radial, clamp",
        [
            (2, 2, (9, 8, 9, 8), False, 0.5),
            (4, 2, (-6, -9, -6, -9), True, None),
            (2, 2, (3, 4, -1, 8), True, 256.0),
            (3, 1, (5, 2, 7, 6), False, None),
            (1, 2, 3, False, 0.7),
            (1, 1, 0, False, 0.3),
        ],
    )
    def test_filtered_lrelu(self, up: int, down: int, padding: Any, radial: bool, clamp: Any, flip: bool) -> None:
        fu = design_lowpass_filter(6 * up, 1.0, 1.2, 8.0) if up > 1 else None
        fd = design_lowpass_filter(6 * down, 1.3, 1.2, 8.0, radial=radial) if down > 1 else None
        x, b = double(2, 3, 23, 21), double(3)
        arguments = {"up": up, "down": down, "padding": padding, "clamp": clamp, "flip_filter": flip}
        found = []
        for impl in ("reference", "lean"):
            with using("reference" if impl == "reference" else "auto"):
                y = filtered_lrelu(x, fu, fd, b, impl=impl, **arguments)
                weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
                found.append([y, *torch.autograd.grad(y, (x, b), weight)])
        for got, expected in zip(found[1], found[0], strict=True):
            assert_close(got, expected.detach(), 1e-12)

    def test_filtered_lrelu_keeps_a_byte_for_each_fine_pixel(self) -> None:
        x, b = torch.randn(1, 4, 20, 20, requires_grad=True), torch.randn(4)
        f, kept = design_lowpass_filter(12, 1.0, 1.2, 4.0), {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            filtered_lrelu(x, f, f, b, up=2, down=2, padding=11, clamp=1.0)
        assert 4 * 40 * 40 <= sum(kept.values()) < 4 * 60 * 60

    @settings(max_examples=30, deadline=None)
    @given(
        up=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        pads=st.tuples(*[st.integers(-3, 8)] * 4),
        separable=st.booleans(),
        flip=st.booleans(),
        taps=st.integers(1, 9),
    )
    def test_upfirdn2d(
        self, up: tuple[int, int], pads: tuple[int, ...], separable: bool, flip: bool, taps: int
    ) -> None:
        # Something has to be left of the picture; what happens where nothing is has a test of its own.
        assume(all(side * n + sum(pad) >= taps for side, n, pad in zip((11, 10), up, (pads[:2], pads[2:]))))
        x, f = double(2, 3, 10, 11), double(taps).detach().float()
        f = f if separable else torch.outer(f, f + 1)
        arguments = {"up": up, "padding": pads, "flip_filter": flip, "gain": 1.7}
        expected, got = (upfirdn2d(x, f, impl=impl, **arguments) for impl in ("reference", "lean"))
        assert_close(got, expected.detach(), 1e-12)
        weight = torch.linspace(-1, 1, got.numel(), dtype=got.dtype).reshape(got.shape)
        gradients = [torch.autograd.grad(y, x, weight)[0] for y in (got, expected)]
        assert_close(gradients[0], gradients[1], 1e-12)

    def test_overwriting(self) -> None:
        x, ones = double(1, 2, 3, 3), torch.ones(1, 2, dtype=torch.float64)
        expected = layer_epilogue(x * 1, ones, impl="reference")
        for overwrite in (False, True):
            given = x * 1
            y = layer_epilogue(given, ones, overwrite=overwrite, impl="lean")
            assert (y.data_ptr() == given.data_ptr()) == overwrite
            assert_close(y, expected.detach(), 1e-12)
            gradients = (
                torch.autograd.grad(result.square().sum(), x, retain_graph=True)[0] for result in (y, expected)
            )
            assert_close(*gradients, 1e-12)

    def test_refused(self) -> None:
        weight = WEIGHT.clone().requires_grad_()
        with pytest.raises(InputError, match='"modulated_conv2d" has no lean form'):
            modulated_conv2d(IMAGE, weight, torch.ones(1, 2), impl="lean")
        with pytest.raises(InputError, match='"layer_epilogue" has no lean form'):
            layer_epilogue(IMAGE, torch.ones(1, 2), slope=-0.1, impl="lean")
        assert modulated_conv2d(IMAGE, weight, torch.ones(1, 2)).requires_grad


class TestRegularisers:
    """Their gradient comes with the value."""

    @pytest.mark.parametrize("slope", [5.0, 0.2])
    def test_gaussian_prior(self, slope: float) -> None:
        root, centre = double(3, 3).detach(), double(3).detach()
        compare_lean(
            lambda impl: lambda w: gaussian_prior(w, centre, root @ root.t(), slope=slope, impl=impl), double(2, 4, 3)
        )

    @pytest.mark.parametrize("squared", [True, False])
    @pytest.mark.parametrize("slots", [1, 4])
    def test_deviation(self, slots: int, squared: bool) -> None:
        compare_lean(lambda impl: lambda w: deviation(w, squared=squared, impl=impl), double(2, slots, 3))

    def test_gaussian_prior_is_float64(self) -> None:
        styles, precision = torch.randn(2, 4, 3, requires_grad=True), torch.eye(3, dtype=torch.float64)
        prior = gaussian_prior(styles, precision[0], precision)
        [gradient] = torch.autograd.grad(prior.sum(), styles)
        assert prior.dtype == torch.float64 and gradient.dtype == torch.float32

    def test_learnt_statistics(self) -> None:
        centre = double(3)
        prior = gaussian_prior(double(2, 4, 3).detach(), centre, torch.eye(3, dtype=torch.float64))
        assert torch.autograd.grad(prior.sum(), centre)[0].abs().sum() > 0

    def test_deviation_of_equal_slots_has_no_slope(self) -> None:
        styles = double(1, 1, 3).detach().repeat(1, 4, 1).requires_grad_()
        for impl in ("reference", "lean"):
            loss = deviation(styles, squared=False, impl=impl).sum()
            assert float(loss) == 0 and torch.autograd.grad(loss, styles)[0].count_nonzero() == 0


def compare_lean(function: Callable[[str], Callable[..., Tensor]], *inputs: Tensor) -> None:
    """Derivatives of the lean form against finite differences, and all against the reference."""
    check_derivatives(function("lean"), *inputs)
    results = [function(impl)(*inputs) for impl in ("lean", "reference")]
    gradient = torch.rand_like(results[0])
    found = [[y, *torch.autograd.grad(y, inputs, gradient)] for y in results]
    for got, expected in zip(*found, strict=True):
        assert_close(got, expected.detach(), 1e-12)


IMAGE = torch.zeros(1, 2, 4, 4)
WEIGHT = torch.ones(3, 2, 3, 3)
OPS: dict[str, Callable[[str], Tensor]] = {
    "upfirdn2d": lambda impl: upfirdn2d(IMAGE, None, impl=impl),
    "conv2d_resample": lambda impl: conv2d_resample(IMAGE, WEIGHT, impl=impl),
    "bias_act": lambda impl: bias_act(IMAGE, impl=impl),
    "filtered_lrelu": lambda impl: filtered_lrelu(IMAGE, impl=impl),
    "modulated_conv_sg3": lambda impl: modulated_conv_sg3(IMAGE, WEIGHT, torch.ones(1, 2), impl=impl),
    "upsample_rgb": lambda impl: upsample_rgb(IMAGE, impl=impl),
}


class TestDispatch:
    @pytest.mark.parametrize("op", OPS)
    def test_every_op(self, op: str) -> None:
        assert torch.equal(OPS[op]("auto"), OPS[op]("reference"))
        with pytest.raises(InputError, match=f'"{op}" has no Triton kernel'):
            OPS[op]("triton")
        with pytest.raises(InputError, match="allowed are auto, reference, lean, triton"):
            OPS[op]("cuda")

    def test_kernel_is_for_cuda_tensors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table = {"reference": torch.neg, "triton": torch.abs}
        monkeypatch.setattr(dispatch, "has_triton", lambda: True)
        assert choose("op", "auto", table, IMAGE) is torch.neg
        assert choose("op", "auto", table) is torch.abs
        assert choose("op", "triton", table) is torch.abs
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(InputError, match="needs CUDA tensors"):
            choose("op", "triton", table, IMAGE)
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        assert choose("op", "triton", table, IMAGE) is torch.abs
        with pytest.raises(InputError, match="reads float32, float16 and bfloat16, not float64"):
            choose("op", "triton", table, IMAGE.double())

    def test_without_the_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table = {"reference": torch.neg, "triton": torch.abs}
        monkeypatch.setattr(dispatch, "has_triton", lambda: False)
        assert choose("op", "auto", table) is torch.neg
        with pytest.raises(InputError, match="needs the package triton"):
            choose("op", "triton", table)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "image of three dimensions": (lambda: upfirdn2d(IMAGE[0], None), r"\[B, C, H, W\]"),
    "factor 0": (lambda: upfirdn2d(IMAGE, None, up=0), "up must be a positive int"),
    "three factors": (lambda: upfirdn2d(IMAGE, None, down=(1, 2, 3)), "down must be a positive int"),
    "three pads": (lambda: upfirdn2d(IMAGE, None, padding=(1, 2, 3)), "padding must be"),
    "all cropped": (lambda: upfirdn2d(IMAGE, None, padding=-2), "leaves nothing"),
    "filter too large": (lambda: upfirdn2d(IMAGE, torch.ones(9)), "leaves nothing"),
    "filter of three dimensions": (lambda: upfirdn2d(IMAGE, torch.ones(1, 1, 1)), "filter is"),
    "filter with gradient": (lambda: upfirdn2d(IMAGE, torch.ones(2, requires_grad=True)), "no derivative"),
    "empty taps": (lambda: setup_filter([]), "not empty"),
    "taps of sum 0": (lambda: setup_filter([1.0, -1.0]), "sum to zero"),
    "separable matrix": (lambda: setup_filter([[1.0, 2.0]], separable=True), "cannot be made separable"),
    "blur of three dimensions": (lambda: blur(IMAGE[0]), r"\[B, C, H, W\]"),
    "blur taps of sum 0": (lambda: blur(IMAGE, (1, -1)), "sum to zero"),
    "blur of a tiny image": (lambda: blur(IMAGE[..., :1, :1], padding=(1, 1)), "fewer than the 4 taps"),
    "unknown activation": (lambda: bias_act(IMAGE, act="mish"), "there are linear, relu"),
    "bias of another size": (lambda: bias_act(IMAGE, torch.zeros(3)), r"must be \[2\]"),
    "bias on no dimension": (lambda: bias_act(IMAGE, torch.zeros(3), dim=4), "not a dimension"),
    "negative clamp": (lambda: bias_act(IMAGE, clamp=-1.0), "must not be negative"),
    "weight of other channels": (lambda: conv2d_resample(IMAGE, WEIGHT, groups=2), "does not fit 2 input channels"),
    "weight of a linear layer": (lambda: conv2d_resample(IMAGE, WEIGHT[..., 0, 0]), r"weight \[O, I, kh, kw\]"),
    "resample by 0": (lambda: conv2d_resample(IMAGE, WEIGHT, down=0), "positive ints"),
    "filtered bias": (lambda: filtered_lrelu(IMAGE, b=torch.zeros(3)), r"must be \[2\]"),
    "filtered clamp": (lambda: filtered_lrelu(IMAGE, clamp=-1.0), "must not be negative"),
    "filtered image": (lambda: filtered_lrelu(IMAGE[0]), r"\[B, C, H, W\]"),
    "styles of another batch": (lambda: modulated_conv_sg3(IMAGE, WEIGHT, torch.ones(2, 2)), r"styles \[B, I\]"),
    "normalisation": (
        lambda: modulated_conv_sg3(IMAGE, WEIGHT, torch.ones(1, 2), normalisation="layer"),
        "sample, batch",
    ),
    "input gain": (
        lambda: modulated_conv_sg3(IMAGE, WEIGHT, torch.ones(1, 2), input_gain=torch.ones(3)),
        "must be a scalar",
    ),
    "precision of another size": (
        lambda: gaussian_prior(torch.ones(1, 2, 3), torch.ones(3), torch.ones(2, 2)),
        r"\[D\] and \[D, D\]",
    ),
    "styles without slots": (lambda: deviation(torch.ones(2, 3)), r"must be \[B, L, D\]"),
    "cutoff above half the rate": (lambda: design_lowpass_filter(6, 3.0, 1.0, 4.0), "cutoff < fs / 2"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    call, message = REFUSED[what]
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("name", ["ops_upfirdn2d", "ops_conv2d_resample", "ops_bias_act", "ops_stylegan3"])
def test_every_golden_case_has_a_test(name: str) -> None:
    data = op_golden(name)
    if data is None:
        pytest.skip(f"no golden data {name}.npz")
    assert all(case.startswith(FAMILIES) for case in data.meta["cases"])
