"""Layouts of published code that can be run beside ours.

A family says how such a folder looks, how its generator is built and called, and what its projector does in a step. To
add one: subclass :class:`AbstractFamily`, and add an instance to :data:`FAMILIES`.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._registry import Registry
from ..checkpoints import stylegan2_from_nvlabs
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ..metrics._base import AbstractPerceptual

FAMILIES: Registry[AbstractFamily] = Registry("family of published code")


class AbstractFamily(ABC):
    """A layout of published code. What imports it is called in processes of their own only.

    Attributes:
        name: As in ``--family``.
        looks: What makes a folder one of the family, in words.
        formulation: Of a step of its projector, in words.
    """

    name: str
    looks: str
    formulation: str

    @abstractmethod
    def recognises(self, folder: Path) -> bool:
        """Whether a folder looks like this family; reads files, and runs nothing."""

    @abstractmethod
    def convert(self, arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
        """Our generator with its weights.

        Raises:
            CheckpointError: If names or shapes are not those of the family.
        """

    @abstractmethod
    def build(self, folder: Path, config: StyleGAN2Config) -> nn.Module:
        """Its generator in float32; imports and runs the code in the folder."""

    @abstractmethod
    def render(self, generator: nn.Module, styles: Tensor) -> Tensor:
        """Image `[B, 3, H, W]` of styles `[B, L, D]` with constant noise."""

    @abstractmethod
    def projector(
        self, generator: nn.Module, metric: AbstractPerceptual, target: Tensor, styles: Tensor
    ) -> Callable[[], object]:
        """A step of its own projector from styles `[B, L, D]` towards a target, as something to call."""

    @abstractmethod
    def rate(self, step: int, steps: int) -> float:
        """Learning rate of Adam in its projector."""


def find_family(folder: Path, name: str | None = None) -> AbstractFamily:
    """The family of a folder: the one of that name, or the one that recognises it.

    Raises:
        InputError: If there is no such folder, or it looks like no family, or not like the one of that name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the one that holds the published code.")
    names = list(FAMILIES) if name is None else [name]
    for family in map(FAMILIES.get, names):
        if family.recognises(folder):
            return family
    known = "; ".join(f"{name}: {FAMILIES.get(name).looks}" for name in names)
    raise InputError(f"{folder} does not look like published code that can be run ({known}).")


class NVLabs(AbstractFamily):
    """NVIDIA's PyTorch StyleGAN2, as in stylegan2-ada-pytorch and stylegan3.

    Reference:
        Karras et al., 2020, arXiv 1912.04958, appendix D, and arXiv 2006.06676.
    """

    name = "nvlabs"
    looks = "class Generator in training/networks.py or training/networks_stylegan2.py"
    formulation = (
        "Adam over W+ and noise maps, LPIPS at 256 or less, noise on w, regularised maps, features of the target kept, "
        "losses read at every step"
    )
    modules = ("training.networks", "training.networks_stylegan2")

    def recognises(self, folder: Path) -> bool:
        return self._module(folder) is not None

    def _module(self, folder: Path) -> str | None:
        for module in self.modules:
            file = folder / (module.replace(".", "/") + ".py")
            if file.is_file() and re.search(r"^class Generator\(", file.read_text("utf-8", "replace"), re.M):
                return module
        return None

    def convert(self, arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
        return stylegan2_from_nvlabs(arrays, config)

    def build(self, folder: Path, config: StyleGAN2Config) -> nn.Module:
        module = self._module(folder)
        assert module is not None
        sys.path.insert(0, str(folder))
        make: Any = importlib.import_module(module).Generator
        synthesis = {
            "channel_base": config.channel_base,
            "channel_max": config.channel_max,
            "num_fp16_res": 0,
            "conv_clamp": config.clamp,
        }
        # The later copy takes these arguments one by one.
        more = {"synthesis_kwargs": synthesis} if module == self.modules[0] else synthesis
        mapping = {"num_layers": config.mapping_layers}
        sizes = (config.z_dim, config.label_dim, config.w_dim, config.resolution, config.image_channels)
        generator = make(*sizes, mapping_kwargs=mapping, **more)
        assert isinstance(generator, nn.Module)
        return generator

    def render(self, generator: nn.Module, styles: Tensor) -> Tensor:
        image = generator.synthesis(styles, noise_mode="const")  # type: ignore[operator]
        assert isinstance(image, Tensor)
        return image

    def projector(
        self, generator: nn.Module, metric: AbstractPerceptual, target: Tensor, styles: Tensor
    ) -> Callable[[], object]:
        buffers = generator.named_buffers()
        maps = [buffer.normal_().requires_grad_() for name, buffer in buffers if name.endswith("noise_const")]
        w = styles.clone().requires_grad_()
        adam = torch.optim.Adam([w, *maps], lr=0.1, betas=(0.9, 0.999))
        kept = metric.prepare(_at_most(target, 256))

        def step() -> tuple[float, float]:
            image = self.render(generator, w + 0.05 * torch.randn_like(w))
            distance = metric(_at_most(image, 256), kept).sum()
            loss = distance + 1e5 * _correlation(maps)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            with torch.no_grad():
                for noise in maps:
                    noise -= noise.mean()
                    noise *= noise.square().mean().rsqrt()
            return float(distance), float(loss)

        return step

    def rate(self, step: int, steps: int) -> float:
        t = step / steps
        down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / 0.25))
        return 0.1 * down * min(1.0, t / 0.05)


def _at_most(image: Tensor, side: int) -> Tensor:
    return image if image.shape[2] <= side else F.interpolate(image, size=(side, side), mode="area")


def _correlation(maps: Sequence[Tensor]) -> Tensor:
    """How far noise maps correlate with themselves one pixel further, at all scales from 8 up."""
    total = torch.zeros((), device=maps[0].device)
    for noise in maps:
        scaled = noise[None, None]
        while True:
            for axis in (3, 2):
                total = total + (scaled * torch.roll(scaled, shifts=1, dims=axis)).mean() ** 2
            if scaled.shape[2] <= 8:
                break
            scaled = F.avg_pool2d(scaled, kernel_size=2)
    return total


FAMILIES.add(NVLabs.name, NVLabs())
