"""Kernels compile for a GPU, which needs none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")

KERNELS = {
    "adam_step": ["_step"],
    "deviation": ["_deviation"],
    "fir": ["_filter"],
    "gaussian_prior": ["_centred", "_summed"],
    "instance_padding": ["_copy"],
    "layer_epilogue": ["_forward", "_backward"],
    "lpips_head": ["_forward", "_backward"],
    "scaled_square": ["_forward", "_backward"],
    "to_rgb": ["_forward", "_backward"],
}
SCRIPT = """
import importlib, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NUMBERS = "slope gain clamp eps shortest beta1 beta2 factor".split()
STRIDES = "stride_p stride_c in_stride_c out_stride_p out_stride_c noise_stride".split()
COUNTS = [*STRIDES, *"pixels channels rows columns width before slots dim".split()]
BLOCKS = dict(BLOCK_P=16, BLOCK_C=64, TAPS=4, OUTPUTS=3, COLUMNS=4)
op, name, kind, capability = sys.argv[1:]
kernel = getattr(importlib.import_module(f"saminv.ops.{op}.triton"), name)
types = {}
for argument in kernel.arg_names:
    if argument.isupper():
        types[argument] = "constexpr"
    elif argument in NUMBERS:
        types[argument] = "fp32"
    else:
        types[argument] = "i32" if argument in COUNTS else "*" + kind
constants = {argument: BLOCKS.get(argument, True) for argument, found in types.items() if found == "constexpr"}
source = ASTSource(fn=kernel, signature=types, constexprs=constants)
assert triton.compile(source, target=GPUTarget("cuda", int(capability), 32)).asm["cubin"]
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton compiles on Linux only")
@pytest.mark.parametrize(("kind", "capability"), [("fp32", "80"), ("fp16", "90"), ("bf16", "90")])
@pytest.mark.parametrize(("op", "name"), [(op, name) for op, names in KERNELS.items() for name in names])
def test_kernel_compiles(op, name, kind, capability, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, op, name, kind, capability]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
