"""What share of the copy bandwidth each kernel achieves, beside its reference and torch.compile of that.

A kernel here moves numbers and computes little, so a copy of as many bytes is what it could cost at best. Bytes are
those of the tensors that must be read and written, each once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..ops._dispatch import has_triton
from ..ops.adam_step import adam_step
from ..ops.fir import blur
from ..ops.instance_padding import pad_ring, ring_length
from ..ops.layer_epilogue import layer_epilogue
from ..ops.lpips_head import lpips_head, unit_length
from ..ops.scaled_square import scaled_square
from ..ops.to_rgb import to_rgb
from .ceilings import device_name, middle
from .processes import Processes, in_turns

Shape = tuple[int, int, int]
"""Channels, height and width."""
Draw = Callable[..., Tensor]
"""Normal numbers of a shape, on the device, in the precision and memory format that are measured."""

LAYERS: tuple[Shape, ...] = ((512, 64, 64), (128, 256, 256), (32, 1024, 1024))
"""Features of StyleGAN2: of F8 at any resolution, of the last layer at 256 and at 1024."""
DELTAS: tuple[Shape, ...] = ((512, 64, 64), (256, 128, 128))
"""Changes of the features F8 and F10."""
STAGES: tuple[Shape, ...] = ((64, 256, 256), (256, 64, 64))
"""The first and third stage of LPIPS on VGG at 256."""
TINY: tuple[Shape, ...] = ((5, 6, 7),)
"""What is interpreted."""
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
"""Largest norm of the difference from the reference in float64, relative to it."""
COPIED = 2**28
"""Bytes of the copy that the kernels are compared with."""


@dataclass(frozen=True)
class Case:
    """An op at one size.

    Attributes:
        function: The public op; takes the inputs by name, and ``impl``.
        inputs: By name.
        moving: Inputs whose gradient an inversion needs.
        kept: Inputs that the backward has to read.
        changed: Inputs that are changed in place, where that is the result.
    """

    function: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    moving: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another precision."""
        inputs = {name: tensor.to(dtype) for name, tensor in self.inputs.items()}
        return Case(self.function, inputs, self.moving, self.kept, self.changed)

    def call(self, impl: str) -> Tensor:
        """The result by an implementation."""
        return self.function(**self.inputs, impl=impl)

    def leaves(self) -> list[Tensor]:
        """The inputs whose gradients are asked for, asking for them."""
        return [self.inputs[name].requires_grad_() for name in self.moving]

    def forward_bytes(self, result: Tensor) -> int:
        """Bytes that are read and written."""
        written = [self.inputs[name] for name in self.changed] or [result]
        return _bytes([*self.inputs.values(), *written])

    def backward_bytes(self, result: Tensor) -> int:
        """Bytes that are read and written for the gradients."""
        return _bytes([result, *(self.inputs[name] for name in (*self.kept, *self.moving))])


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _epilogue(draw: Draw, shape: Shape, change: bool = False, filtered: bool = False) -> Case:
    channels, height, width = shape
    # A transposed convolution leaves one more row and column.
    x = draw(1, channels, height + filtered, width + filtered)
    inputs = {"x": x, "demodulation": draw(1, channels), "bias": draw(channels), "noise": draw(1, 1, height, width)}
    moving: tuple[str, ...] = ("x", "demodulation")
    kept: tuple[str, ...] = tuple(inputs)
    if change:
        inputs |= {"delta": draw(1, *shape), "mask": draw(1, 1, height, width)}
        moving, kept = (*moving, "delta"), (*kept, "mask")
    function = functools.partial(layer_epilogue, gain=2**0.5, blur=1 if filtered else None)
    return Case(function, inputs, moving, kept)


def _to_rgb(draw: Draw, shape: Shape) -> Case:
    channels, height, width = shape
    inputs = {"x": draw(1, *shape), "weight": draw(3, channels, 1, 1), "styles": draw(1, channels), "bias": draw(3)}
    inputs["skip"] = draw(1, 3, height, width)
    # The gradient of the skip image is the one that arrives.
    return Case(to_rgb, inputs, ("x", "styles"), ("x", "weight", "styles"))


def _blur(draw: Draw, shape: Shape) -> Case:
    channels, height, width = shape
    return Case(blur, {"x": draw(1, channels, height + 1, width + 1)}, ("x",))


def _pad_ring(draw: Draw, shape: Shape) -> Case:
    channels, height, width = shape
    ring = draw(1, channels, ring_length(height, width))
    return Case(pad_ring, {"x": draw(1, *shape), "ring": ring}, ("x", "ring"))


def _lpips_head(draw: Draw, shape: Shape) -> Case:
    target, weights = unit_length(draw(1, *shape)), draw(shape[0]).abs()
    inputs = {"features": draw(1, *shape), "target": target, "weights": weights}
    return Case(lpips_head, inputs, ("features",), tuple(inputs))


def _scaled_square(draw: Draw, shape: Shape) -> Case:
    inputs = {"x": draw(1, *shape), "units": draw(shape[0]).abs() + 0.5}
    return Case(scaled_square, inputs, ("x",), tuple(inputs))


def _adam_step(draw: Draw, shape: Shape) -> Case:
    inputs = {name: draw(1, *shape) for name in ("x", "gradient", "first", "second")}
    inputs["second"] = inputs["second"].abs()
    inputs |= {name: draw(1).abs() + 0.1 for name in ("rate", "second_bias")}
    return Case(adam_step, inputs, changed=("x", "first", "second"))


KERNELS: dict[str, tuple[Callable[[Draw, Shape], Case], tuple[Shape, ...]]] = {
    "layer_epilogue": (_epilogue, LAYERS),
    "layer_epilogue, filter": (functools.partial(_epilogue, filtered=True), LAYERS),
    "layer_epilogue, change": (functools.partial(_epilogue, change=True), DELTAS),
    "to_rgb": (_to_rgb, LAYERS),
    "blur": (_blur, LAYERS),
    "pad_ring": (_pad_ring, LAYERS),
    "lpips_head": (_lpips_head, STAGES),
    "scaled_square": (_scaled_square, DELTAS),
    "adam_step": (_adam_step, DELTAS),
}
"""How each kernel is called, and the sizes at which it is measured."""


@dataclass(frozen=True)
class KernelTime:
    """One pass of a kernel at one size.

    Attributes:
        kernel: A name in ``KERNELS``.
        shape: Channels, height and width.
        dtype: Of the numbers, such as "float32".
        direction: "forward" or "backward".
        moved: Bytes that must be read and written.
        difference: From the reference in float64, relative.
        milliseconds: Medians by implementation; empty where kernels are interpreted or do not agree.
    """

    kernel: str
    shape: Shape
    dtype: str
    direction: str
    moved: int
    difference: float
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance of the precision."""
        return self.difference <= TOLERANCE[self.dtype]


@dataclass
class KernelReport:
    """Everything that was measured.

    Attributes:
        device: The machine, in words.
        interpreted: Whether kernels were interpreted, so that nothing was timed.
        copy: Bandwidth of a copy in GB/s; None where nothing was timed.
        rows: What was measured.
    """

    device: str
    interpreted: bool
    copy: float | None
    rows: list[KernelTime]

    def share(self, row: KernelTime, impl: str) -> float | None:
        """Achieved share of the copy bandwidth; None where nothing was timed."""
        if self.copy is None or impl not in row.milliseconds:
            return None
        return row.moved / row.milliseconds[impl] / 1e6 / self.copy

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [
            {**asdict(row), "agrees": row.agrees, "share": {impl: self.share(row, impl) for impl in row.milliseconds}}
            for row in self.rows
        ]
        return {"device": self.device, "interpreted": self.interpreted, "copy": self.copy, "rows": rows}


def measure_kernels(
    kernels: Sequence[str] = tuple(KERNELS),
    dtypes: Sequence[str] = tuple(TOLERANCE),
    *,
    interpret: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> KernelReport:
    """Measure kernels beside their references and torch.compile of these, on a CUDA device.

    A kernel that does not agree with its reference is not timed.

    Args:
        kernels: Names in ``KERNELS``.
        dtypes: "float32" and "float16".
        interpret: Interpret the kernels at tiny sizes on the CPU instead: they are compared, and nothing is timed.
        threads: Of the CPU; torch's own choice where None.
        progress: Show a bar over the kernels.

    Raises:
        InputError: For an unknown kernel, or without Triton or a CUDA device.
    """
    unknown = [name for name in kernels if name not in KERNELS]
    if unknown:
        raise InputError(f"There is no kernel {', '.join(unknown)}; there are: {'; '.join(KERNELS)}.")
    if not has_triton():
        raise InputError("The kernels need the package triton, which is not installed.")
    if not interpret and not torch.cuda.is_available():
        raise InputError("Kernels are timed on a CUDA device, and torch sees none here; --interpret only runs them.")
    device = "cpu" if interpret else "cuda"
    with Processes(threads, 1 + len(kernels), progress) as run:
        name, copy = run(_copy_bandwidth, device)
        rows = [row for kernel in kernels for row in run(_measure, kernel, tuple(dtypes), device)]
    return KernelReport(name, interpret, None if interpret else copy, rows)


def _copy_bandwidth(device: str) -> tuple[str, float]:
    """The device in words, and its bandwidth in GB/s (0 on the CPU, where nothing is timed)."""
    if device == "cpu":
        return device_name(device), 0.0
    numbers = torch.randn(COPIED // 4, device=device)
    into = torch.empty_like(numbers)
    return device_name(device), 2 * COPIED / _milliseconds(lambda: into.copy_(numbers)) / 1e6


def _milliseconds(function: Callable[[], object]) -> float:
    """Median on the device; the cache is emptied before each call, which also hides the time of the launch."""
    from triton.testing import do_bench

    return float(do_bench(function, warmup=25, rep=100, return_mode="median"))


def _measure(kernel: str, dtypes: Sequence[str], device: str) -> list[KernelTime]:
    """All sizes and precisions of a kernel, in this process."""
    if device == "cpu":
        # Triton reads it when a kernel is defined, which is at its first use.
        os.environ["TRITON_INTERPRET"] = "1"
    build, shapes = KERNELS[kernel]
    found: list[KernelTime] = []
    for shape in TINY if device == "cpu" else shapes:
        for dtype in dtypes:
            found += _passes(kernel, build(_drawer(device), shape), shape, dtype, timed=device != "cpu")
    return found


def _drawer(device: str) -> Draw:
    source = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=source, device=device)
        return numbers.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else numbers

    return draw


def _passes(kernel: str, exact: Case, shape: Shape, dtype: str, timed: bool) -> Iterator[KernelTime]:
    case = exact.to(getattr(torch, dtype))
    # The same rounded numbers go into the reference.
    expected, got = _results(case.to(torch.float64), "reference"), _results(case, "triton")
    sizes = {"forward": case.forward_bytes(got["forward"][0]), "backward": case.backward_bytes(got["forward"][0])}
    for direction, tensors in got.items():
        pairs = list(zip(tensors, expected[direction]))
        difference = max(float((mine - theirs).norm() / theirs.norm()) for mine, theirs in pairs)
        row = KernelTime(kernel, shape, dtype, direction, sizes[direction], difference)
        yield replace(row, milliseconds=_times(case, direction)) if timed and row.agrees else row


def _results(case: Case, impl: str) -> dict[str, list[Tensor]]:
    """What each pass gives; inputs that are changed in place are as before afterwards."""
    before = {name: case.inputs[name].clone() for name in case.changed}
    leaves = case.leaves()
    result = case.call(impl)
    changed = [case.inputs[name].clone() for name in case.changed]
    for name, tensor in before.items():
        case.inputs[name].copy_(tensor)
    found = {"forward": changed or [result.detach()]}
    if leaves:
        found["backward"] = list(torch.autograd.grad(result, leaves, _arriving(result)))
    return {direction: [tensor.double() for tensor in tensors] for direction, tensors in found.items()}


def _arriving(result: Tensor) -> Tensor:
    """A gradient that arrives at a result, the same one for all implementations."""
    source = torch.Generator().manual_seed(1)
    numbers = torch.randn(result.shape, generator=source).to(result.device, torch.float16)
    return torch.empty_like(result).copy_(numbers)


def _times(case: Case, direction: str) -> dict[str, float]:
    """Medians in ms by implementation; compiled is left out where the compiler does not know what to do."""
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.reset()
    compiled = torch.compile(functools.partial(case.function, impl="reference"), dynamic=False)
    calls: dict[str, Callable[[], Tensor]] = {
        "triton": lambda: case.call("triton"),
        "reference": lambda: case.call("reference"),
        "compiled": lambda: compiled(**case.inputs),
    }
    found: dict[str, list[float]] = {}
    leaves = case.leaves()
    # The backward is timed on one graph, again and again.
    with torch._functorch.config.patch(donated_buffer=False):
        for impl in in_turns(list(calls)):
            try:
                found.setdefault(impl, []).append(_milliseconds(_pass(calls[impl], leaves, direction)))
            except (RuntimeError, NotImplementedError):
                if impl != "compiled":
                    raise
    return {impl: middle(values) for impl, values in found.items() if values}


def _pass(call: Callable[[], Tensor], leaves: Sequence[Tensor], direction: str) -> Callable[[], object]:
    """A pass as something to call."""
    if direction == "forward":
        return call
    result = call()
    arriving = _arriving(result)
    return lambda: torch.autograd.grad(result, leaves, arriving, retain_graph=True)
