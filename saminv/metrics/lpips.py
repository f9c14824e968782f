"""LPIPS v0.1, by the lpips package, with target features computed once and weights read safely."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError, InputError, MissingExtraError
from ..weights import obtain
from ..weights.published import read_state
from ._base import AbstractPerceptual

HOST = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Backbone:
    """Where the weights of a backbone come from.

    Attributes:
        file: File name; the part after the dash begins its SHA-256.
        minimal_size: Bytes that the whole file has at least.
        smallest: Least side of an image in pixels.
    """

    file: str
    minimal_size: int
    smallest: int

    @property
    def url(self) -> str:
        """Address of the file."""
        return HOST + self.file

    @property
    def sha256(self) -> str:
        """The first eight hexadecimal digits of the file's SHA-256."""
        return self.file.removesuffix(".pth").rsplit("-", 1)[1]


BACKBONES = {
    "vgg": Backbone("vgg16-397923af.pth", 550_000_000, 16),
    "alex": Backbone("alexnet-owt-7be5be79.pth", 240_000_000, 31),
    "squeeze": Backbone("squeezenet1_1-b8a52dc0.pth", 4_900_000, 17),
}


class LPIPS(AbstractPerceptual):
    """LPIPS v0.1: the network and linear heads of the lpips package on an ImageNet backbone.

    The heads come with the lpips package. The backbone's weights are torchvision's; they are taken from ``weights``
    (a file, or a folder that holds it), else from the folder of :func:`saminv.weights.weights_folder`, else fetched
    into that folder and checked. Values equal those of the lpips package; its gradient is not a number where all
    channels of a stage are zero, this one's is. At least 0, 0 for identical images; at the size of the images, which
    are not resized.

    Args:
        net: ``"vgg"``, ``"alex"`` or ``"squeeze"``.
        weights: File or folder with the backbone's weights, or a state dict with torchvision's names.

    Raises:
        InputError: If the backbone is unknown.
        MissingExtraError: If the lpips package is not installed.
        WeightsError: If the weights are not on this machine and could not be fetched; says where to put them.
        CheckpointError: If a file is damaged or holds something else.

    Reference:
        R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018,
        arXiv:1801.03924, Eq. 1.
    """

    # The package carries no type hints.
    lpips: Any

    def __init__(self, net: str = "vgg", weights: str | Path | Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise InputError(f"LPIPS has no backbone {net!r}. It has: {', '.join(BACKBONES)}.")
        backbone = BACKBONES[net]
        self.name = f"lpips-{net}"
        self.smallest = backbone.smallest
        package = _package()
        if not isinstance(weights, Mapping):
            path = obtain(backbone.url, sha256=backbone.sha256, minimal_size=backbone.minimal_size, given=weights)
            weights = read_state(path)
        self.lpips = _build(package, net)
        _fill(self.lpips, read_state(_heads_path(net)), weights, self.name)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stay in evaluation mode: a metric has no dropout."""
        return super().train(False)  # type: ignore[return-value]

    def stages(self, image: Tensor) -> Sequence[Tensor]:
        scaled = self.lpips.scaling_layer(image.to(self.lpips.scaling_layer.shift.dtype))
        return list(self.lpips.net(scaled))

    def channel_weights(self) -> Sequence[Tensor]:
        return [head.model[-1].weight.flatten() for head in self.lpips.lins]


lpips_vgg = functools.partial(LPIPS, "vgg")
lpips_alex = functools.partial(LPIPS, "alex")
lpips_squeeze = functools.partial(LPIPS, "squeeze")


def _package() -> Any:
    try:
        import lpips
    except ImportError as error:
        raise MissingExtraError("LPIPS needs the lpips package: pip install lpips") from error
    return lpips


def backbone_shapes(net: str) -> dict[str, torch.Size]:
    """Shapes of the backbone's weights by torchvision's names, without the weights.

    Raises:
        MissingExtraError: If the lpips package is not installed.
    """
    state = _build(_package(), net).state_dict()
    return {_torchvision_name(key): slot.shape for key, slot in state.items() if key.startswith("net.")}


def _build(package: Any, net: str) -> Any:
    """The lpips package's module without a download, without random numbers and without its message."""
    with warnings.catch_warnings():
        # The package calls torchvision with an argument that newer versions deprecate.
        warnings.simplefilter("ignore")
        # On the meta device nothing is initialised: 500 MB of a classifier that is thrown away, and no random state.
        with torch.device("meta"):
            module = package.LPIPS(net=net, version="0.1", pretrained=False, pnet_rand=True, verbose=False)
    module.scaling_layer = package.ScalingLayer()
    return module


def _fill(module: Any, heads: Mapping[str, Tensor], backbone: Mapping[str, Tensor], name: str) -> None:
    """Load the heads, and the backbone under the package's names: ``net.slice1.0.weight`` is ``features.0.weight``."""
    state = dict(module.scaling_layer.state_dict(prefix="scaling_layer."))
    for key, slot in module.state_dict().items():
        if key in state:
            continue
        source, theirs = (heads, key) if key.startswith("lin") else (backbone, _torchvision_name(key))
        if key.startswith("lins."):
            # The package lists every head twice, as lin0 and as lins.0.
            theirs = "lin" + key.removeprefix("lins.")
        if theirs not in source or source[theirs].shape != slot.shape:
            found = list(source[theirs].shape) if theirs in source else "no such tensor"
            raise CheckpointError(
                f"These are not the weights of {name}: {theirs!r} should be {list(slot.shape)}, found {found}. "
                f"Use the file {BACKBONES[name.removeprefix('lpips-')].url}"
            )
        state[key] = source[theirs].detach().to("cpu", torch.float32, copy=True)
    module.load_state_dict(state, strict=True, assign=True)


def _torchvision_name(key: str) -> str:
    return "features." + key.removeprefix("net.").split(".", 1)[1]


def _heads_path(net: str) -> Path:
    spec = find_spec("lpips")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "weights" / "v0.1" / f"{net}.pth"
