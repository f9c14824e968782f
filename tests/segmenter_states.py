"""Random weights under the tensor names of published segmentation networks, for the tests of the segmenters."""

from __future__ import annotations

import torch
from torch import Tensor


class State(dict[str, Tensor]):
    """A state dict that is written by hand: names and shapes, as the published files have them."""

    def __init__(self, seed: int = 0, *, counters: bool = True) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.counters = counters

    def conv(self, name: str, outputs: int, inputs: int, kernel: int = 1, *, bias: bool = False) -> None:
        scale = (2 / (inputs * kernel**2)) ** 0.5
        self[f"{name}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=self.generator)
        if bias:
            self[f"{name}.bias"] = torch.randn(outputs, generator=self.generator)

    def norm(self, name: str, width: int) -> None:
        for part, offset in (("weight", 0.8), ("bias", -0.2), ("running_mean", -0.2), ("running_var", 0.8)):
            self[f"{name}.{part}"] = offset + 0.4 * torch.rand(width, generator=self.generator)
        if self.counters:
            self[f"{name}.num_batches_tracked"] = torch.tensor(7)


def ade20k_encoder(seed: int = 0) -> State:
    """encoder_epoch_20.pth."""
    state = State(seed)
    for number, (inputs, outputs) in enumerate(((3, 64), (64, 64), (64, 128)), start=1):
        state.conv(f"conv{number}", outputs, inputs, 3)
        state.norm(f"bn{number}", outputs)
    inputs = 128
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes = ((width, inputs, 1), (width, width, 3), (4 * width, width, 1))
            for number, (outputs, entering, kernel) in enumerate(shapes, start=1):
                state.conv(f"{name}.conv{number}", outputs, entering, kernel)
                state.norm(f"{name}.bn{number}", outputs)
            if block == 0:
                state.conv(f"{name}.downsample.0", 4 * width, inputs)
                state.norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return state


def ade20k_decoder(seed: int = 0) -> State:
    """decoder_epoch_20.pth."""
    state = State(seed)
    for scale in range(4):
        state.conv(f"ppm.{scale}.1", 512, 2048)
        state.norm(f"ppm.{scale}.2", 512)
    state.conv("cbr_deepsup.0", 512, 1024, 3)
    state.norm("cbr_deepsup.1", 512)
    state.conv("conv_last.0", 512, 4096, 3)
    state.norm("conv_last.1", 512)
    state.conv("conv_last.4", 150, 512, bias=True)
    state.conv("conv_last_deepsup", 150, 512, bias=True)
    return state


def face_parser(seed: int = 0) -> State:
    """79999_iter.pth."""
    state = State(seed)
    state.conv("cp.resnet.conv1", 64, 3, 7)
    state.norm("cp.resnet.bn1", 64)
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"cp.resnet.layer{stage}.{block}"
            for number, entering in ((1, inputs), (2, width)):
                state.conv(f"{name}.conv{number}", width, entering, 3)
                state.norm(f"{name}.bn{number}", width)
            if inputs != width:
                state.conv(f"{name}.downsample.0", width, inputs)
                state.norm(f"{name}.downsample.1", width)
            inputs = width
    for name, width in (("arm16", 256), ("arm32", 512)):
        _unit(state, f"cp.{name}.conv", 128, width, 3)
        state.conv(f"cp.{name}.conv_atten", 128, 128)
        state.norm(f"cp.{name}.bn_atten", 128)
    for name, entering, kernel in (("conv_head32", 128, 3), ("conv_head16", 128, 3), ("conv_avg", 512, 1)):
        _unit(state, f"cp.{name}", 128, entering, kernel)
    _unit(state, "ffm.convblk", 256, 256, 1)
    state.conv("ffm.conv1", 64, 256)
    state.conv("ffm.conv2", 256, 64)
    for name, entering, width in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        _unit(state, f"{name}.conv", width, entering, 3)
        state.conv(f"{name}.conv_out", 19, width)
    return state


def _unit(state: State, name: str, outputs: int, inputs: int, kernel: int) -> None:
    state.conv(f"{name}.conv", outputs, inputs, kernel)
    state.norm(f"{name}.bn", outputs)


def filled(module: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors for a module that may be on the meta device, alive through many layers."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, slot in module.state_dict().items():
        if not slot.is_floating_point():
            state[name] = torch.zeros(slot.shape, dtype=slot.dtype)
        elif slot.dim() < 2:
            state[name] = (0.5 if name.endswith(("weight", "var")) else -0.5) + torch.rand(
                slot.shape, generator=generator
            )
        else:
            state[name] = (2 / slot[0].numel()) ** 0.5 * torch.randn(slot.shape, generator=generator)
    return state
