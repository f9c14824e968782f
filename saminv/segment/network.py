"""The invertibility network: an image to the error that it is expected to have in each latent space.

Reference:
    Parmar, "Spatially-Adaptive Multilayer GAN Inversion and Editing", 2022, CMU-RI-TR-22-26 (arXiv:2206.08357),
    section 3.1, Eq. 3.1 and 3.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import CheckpointError, InputError
from .._files import atomic_write
from ..metrics.vision import SLOPE, VisionNet
from ..weights import load_named
from .backbones import BACKBONES, Small, TorchvisionDeepLab
from .deeplab import PublishedHead

FORMAT = "saminv.invertibility.1"
BUNDLED = "demo-invertibility"
SHARPNESS = 10.0
"""Of the softplus: below about 1 / SHARPNESS an output bends towards 0 instead of being cut."""


@dataclass(frozen=True)
class InvertibilityConfig:
    """Everything that determines a network's shape and what its maps mean; stored beside its weights as JSON.

    Attributes:
        spaces: Names of the latent spaces, the most editable first.
        fingerprint: Of the generator whose errors it predicts; empty where that is not recorded.
        metric: Name of the perceptual metric of the errors; empty where that is not recorded.
        image_size: Height and width of the images that it was trained on; None where that is not recorded.
        steps: Optimisation steps of the inversions that were measured; 0 where that is not recorded.
        backbone: Name in :data:`saminv.segment.backbones.BACKBONES`.
        widths: Of the backbone; its own if empty.
        features: Channels that the heads share.
        head: "convolution", or "published" for that of the published networks (transposed, with batch norm).
        output: How errors are kept >= 0: "softplus", which always has a gradient, or "relu" as published.
        loss: With which it was trained: "l2" (Eq. 3.2), or "l2-sqrt" between square roots.
        spreads: Standard deviation of the errors of each space, in which its loss is counted, so that the backbone
            learns from all of them; all 1 if empty. What is best for a head does not depend on it.
    """

    spaces: tuple[str, ...]
    fingerprint: str = ""
    metric: str = ""
    image_size: tuple[int, int] | None = None
    steps: int = 0
    backbone: str = "small"
    widths: tuple[int, ...] = ()
    features: int = 8
    head: str = "convolution"
    output: str = "softplus"
    loss: str = "l2"
    spreads: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.spaces, str) or not self.spaces or len(set(self.spaces)) != len(self.spaces):
            raise InputError(f"An invertibility network needs a list of different spaces, not {self.spaces!r}.")
        if self.backbone not in BACKBONES:
            BACKBONES.get(self.backbone)
        if self.spreads and (len(self.spreads) != len(self.spaces) or not all(value > 0 for value in self.spreads)):
            raise InputError(
                f"There must be a spread above 0 for each of {', '.join(self.spaces)}, not {self.spreads}."
            )
        choices: dict[str, Iterable[str]] = {"head": HEADS, "output": OUTPUTS, "loss": LOSSES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        sizes = (*self.widths, self.features, *(self.image_size or (1, 1)))
        if min(sizes) < 1 or (self.image_size is not None and len(self.image_size) != 2):
            raise InputError(f"Widths, features and image_size (height, width) must be at least 1; got {self}.")

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> InvertibilityConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: If the text is no configuration.
        """
        try:
            found = json.loads(text).items()
            values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found}
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"This is no configuration of an invertibility network: {error}") from error


class InvertibilityNet(nn.Module):
    """Predicts the error map of every space: a shared backbone, and a head for each space.

    Args:
        config: Its shape.

    Attributes:
        config: Its shape.
    """

    def __init__(self, config: InvertibilityConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = BACKBONES.get(config.backbone)(config.features, config.widths)
        self.heads = nn.ModuleDict({space: HEADS[config.head](config.features) for space in config.spaces})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Expected error by space, each `[B, 1, H, W]` >= 0, of images `[B, 3, H, W]` in [-1, 1].

        Raises:
            InputError: If ``image`` has another shape.
        """
        return dict(zip(self.config.spaces, self.stacked(image).split(1, dim=1)))

    def stacked(self, image: Tensor) -> Tensor:
        """The same maps in one tensor `[B, K, H, W]`, in the order of the configuration's spaces."""
        if image.dim() != 4 or image.shape[1] != 3 or image.numel() == 0:
            raise InputError(f"An invertibility network needs images [B, 3, H, W], not {list(image.shape)}.")
        features = self.backbone(image)
        raw = torch.cat([self.heads[space](features) for space in self.config.spaces], dim=1)
        return OUTPUTS[self.config.output](raw)

    @torch.no_grad()
    def start_from_means(self, errors: Tensor) -> None:
        """Make an untrained network predict about the mean error of each space `[K]` everywhere.

        Otherwise its first steps go into finding these, and a ReLU may be cut off for good.
        """
        for head, error in zip(self.heads.values(), errors.double().clamp_min(1e-3).tolist(), strict=True):
            last = [module for module in head.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))][-1]
            last.weight.mul_(0.1)
            assert last.bias is not None
            value = torch.tensor(error, dtype=torch.float64)
            soft = self.config.output == "softplus"
            last.bias.fill_(float((SHARPNESS * value).expm1().log() / SHARPNESS if soft else value))

    def init_from_vision(self, vision: VisionNet) -> None:
        """Copy the stages of a trained vision network into a "small" backbone.

        Raises:
            InputError: If the backbone is another, or of other shapes.
        """
        if not isinstance(self.backbone, Small):
            raise InputError(
                f"Only the backbone 'small' can start from a vision network, not {self.config.backbone!r}."
            )
        self.backbone.init_from_vision(vision)

    def init_from_file(self, path: str | Path) -> None:
        """Load a "deeplab-..." backbone's encoder from a file with torchvision's classification weights.

        Raises:
            InputError: If the backbone is another.
            CheckpointError: If the file is missing, damaged, or of another network.
        """
        if not isinstance(self.backbone, TorchvisionDeepLab):
            raise InputError(f"The backbone {self.config.backbone!r} is none of torchvision's; it starts from no file.")
        self.backbone.load_encoder(path)


class _Head(nn.Sequential):
    """Shared features `[B, C, H, W]` to `[B, 1, H, W]`."""

    def __init__(self, inputs: int) -> None:
        super().__init__(nn.LeakyReLU(SLOPE), nn.Conv2d(inputs, inputs, 3, padding=1), nn.LeakyReLU(SLOPE))
        self.append(nn.Conv2d(inputs, 1, 1))


def _softplus(raw: Tensor) -> Tensor:
    return F.softplus(raw, beta=SHARPNESS)


HEADS: Mapping[str, Callable[[int], nn.Module]] = {"convolution": _Head, "published": PublishedHead}
OUTPUTS: Mapping[str, Callable[[Tensor], Tensor]] = {"softplus": _softplus, "relu": F.relu}
LOSSES = ("l2", "l2-sqrt")


def save_invertibility(
    network: InvertibilityNet,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write a network and its configuration as a safetensors file; returns the path.

    Args:
        network: The network.
        path: The file; it appears whole or not at all.
        metadata: Further texts for the header.
        half: Store kernels as float16, which changes predictions by about one part in a thousand.

    Raises:
        OutputError: If the file cannot be written.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if half:
        # Biases and statistics stay: they are few, and variances may lie outside the range of float16.
        state = {key: value.half() if value.dim() > 1 else value for key, value in state.items()}
    header = {**(metadata or {}), "format": FORMAT, "config": network.config.to_json()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(state, header))
    return Path(path)


def load_invertibility(path: str | Path | None = None) -> InvertibilityNet:
    """Load a network, frozen and in evaluation mode; the demo's bundled one unless a path is given.

    Raises:
        CheckpointError: If the file is missing, damaged, or no invertibility network.
    """
    what, tensors, metadata = load_named(BUNDLED, path)
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise CheckpointError(
            f"{what} is no invertibility network of this library (format {metadata.get('format')!r}); "
            "published ones are read by saminv.segment.load_published."
        )
    network = InvertibilityNet(InvertibilityConfig.from_json(metadata["config"]))
    load_state(
        network, {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, what
    )
    return network.requires_grad_(False).eval()


def load_state(network: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Fill a network with arrays; ``what`` names their file.

    Raises:
        CheckpointError: If they do not fit or are not finite.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"{what} does not fit its own configuration: {error}") from error
    wrong = [name for name, value in network.state_dict().items() if not bool(value.isfinite().all())]
    if wrong:
        raise CheckpointError(f"{what} is damaged: {wrong[0]} has values that are infinite or not a number.")
