"""What a generator is to the rest of the library: named sites, a mapping, a synthesis, statistics of its latents."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .._errors import InputError
from .._registry import Registry
from .._types import Features
from ..ops import using
from ..sites import Site, Tap, Taps
from ._style_layers import find_style_layers, stacked

GENERATORS: Registry[Callable[..., AbstractGenerator]] = Registry("generator")
"""Generators by name, as functions that open them."""
FAMILIES: Registry[type[AbstractGenerator]] = Registry("family of generators")
"""Classes by the name of their family, which their files carry."""

GAUSSIANISE_SLOPE = 5.0
"""LeakyReLU slope that undoes the last LeakyReLU(0.2) of the mapping (Wulff and Torralba, 2020, arXiv 2009.06529)."""

WEIGHTS = "weights"
"""Site of the weights of the synthesis, all of them in one row."""
IMAGE = "image"
"""What ``synthesis(until=...)`` calls the picture."""
NOISE_MODES = ("const", "random", "none")
STATISTICS_SAMPLES = 5000
EIGENVALUE_FLOOR = 1e-3


def check_noise(noise: str) -> None:
    """Raise ``InputError`` for a noise mode that there is not."""
    if noise not in NOISE_MODES:
        raise InputError(f"noise must be one of {', '.join(NOISE_MODES)}; got {noise!r}.")


def _label_key(label: Tensor | int | None) -> tuple[float, ...] | None:
    """What tells a label from others."""
    return None if label is None else tuple(torch.as_tensor(label).flatten().tolist())


def gaussianise(w: Tensor) -> Tensor:
    """LeakyReLU_5(w), which makes w nearly Gaussian. Any shape."""
    return F.leaky_relu(w, GAUSSIANISE_SLOPE)


@dataclass(frozen=True)
class LatentStatistics:
    """Moments of w and of v = LeakyReLU_5(w) over random samples of a mapping.

    Attributes:
        mean_w: Mean of w `[D]`.
        mean_v: Mean of v `[D]`, the centre that Eq. 3.6 of the SAM report asks for.
        mean_v_published: LeakyReLU_5 of the mean of w `[D]`, the centre that the published code uses.
        inverse_covariance_w: `[D, D]`, float64, with the published 1e-8 on the diagonal of the covariance.
        inverse_covariance_v: The same of v.
        precision_v: Inverse covariance of v with a floor of :data:`EIGENVALUE_FLOOR` mean eigenvalues, so that
            directions in which samples hardly vary do not rule the prior `[D, D]`, float64.
        factor_w: Lower Cholesky factor of the covariance of w with the same floor `[D, D]`, float64.
    """

    mean_w: Tensor
    mean_v: Tensor
    mean_v_published: Tensor
    inverse_covariance_w: Tensor
    inverse_covariance_v: Tensor
    precision_v: Tensor
    factor_w: Tensor

    @classmethod
    def from_samples(cls, w: Tensor, jitter: float = 1e-8) -> LatentStatistics:
        """Estimate the moments from samples `[N, D]` (covariance divided by N - 1, plus ``jitter`` on the diagonal)."""
        w = w.detach().double()
        v = gaussianise(w)
        eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
        covariance_w, covariance_v = torch.cov(w.t()) + jitter * eye, torch.cov(v.t()) + jitter * eye
        floor_w, floor_v = (EIGENVALUE_FLOOR * c.diagonal().mean() * eye for c in (covariance_w, covariance_v))
        mean_w = w.mean(0)
        return cls(
            mean_w=mean_w,
            mean_v=v.mean(0),
            mean_v_published=gaussianise(mean_w),
            inverse_covariance_w=torch.linalg.inv(covariance_w),
            inverse_covariance_v=torch.linalg.inv(covariance_v),
            precision_v=torch.linalg.inv(covariance_v + floor_v),
            factor_w=torch.linalg.cholesky(covariance_w + floor_w),
        )


class _Rendering(nn.Module):
    """Calls a function that renders by a generator, so that the generator can have other weights meanwhile."""

    def __init__(self, generator: AbstractGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, render: Callable[[Tensor, Taps], Tensor | Features], styles: Tensor, taps: Taps) -> Any:
        return render(styles, taps)


class AbstractGenerator(nn.Module, ABC):
    """A generator with named sites.

    Attributes:
        sites: Every place where taps may act, by name.
        image_size: (height, width) of the picture in pixels.
        num_styles: Number of style slots L.
        style_dim: Dimension D of a style.
        z_dim: Dimension of the input noise.
        label_dim: Number of classes, 0 without.
        default_spaces: Spaces that a plain ``invert`` uses.
        style_base: Style space that is there where none is named.
        mapping_names: Beginnings of the names of weights that only the mapping reads.
        name: Under which it is registered; empty for one that came from a file or was built.
        family: Under which its class is registered.
        configuration: A frozen dataclass that fixes the shape of a generator; its one argument.
        config: Its configuration.
        feature_dtypes: Types other than that of its weights that its features can have; ``synthesis`` has an argument
            ``dtype`` then.
    """

    sites: Mapping[str, Site]
    image_size: tuple[int, int]
    num_styles: int
    style_dim: int
    z_dim: int
    label_dim: int = 0
    default_spaces: tuple[str, ...] = ("W+",)
    style_base: str = "W+"
    mapping_names: ClassVar[tuple[str, ...]] = ("mapping_network.",)
    name: str = ""
    feature_dtypes: frozenset[torch.dtype] = frozenset()
    family: ClassVar[str] = ""
    configuration: ClassVar[type[Any]]
    config: Any

    def __init__(self) -> None:
        super().__init__()
        self._statistics: dict[tuple[object, ...], LatentStatistics] = {}
        self._style_axes: dict[tuple[object, ...], Tensor] = {}
        self._feature_deviation: dict[str, Tensor] = {}
        self._padding_deviation: dict[str, Tensor] = {}
        self._fingerprint: str | None = None

    @abstractmethod
    def mapping(self, z: Tensor, label: Tensor | int | None = None, truncation: float = 1.0) -> Tensor:
        """Map noise `[B, z_dim]` to styles `[B, L, D]`."""

    @abstractmethod
    def synthesis(
        self,
        styles: Tensor,
        taps: Iterable[Tap] = (),
        *,
        noise: str = "const",
        truncation: float = 1.0,
        until: str | Sequence[str] | None = None,
    ) -> Tensor | Features:
        """Render styles `[B, L, D]` with taps to an image `[B, 3, H, W]`, nominally in [-1, 1].

        With ``until`` (one site or several), return the tensors at these sites, after their taps, and compute nothing
        beyond the last of them. "image" among them is the picture itself.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        return next(self.parameters()).dtype

    @property
    def feature_sites(self) -> tuple[str, ...]:
        """Names of the feature sites between a convolution and its toRGB, first layer first."""
        return tuple(n for n, s in self.sites.items() if s.kind == "feature" and not n.endswith(".block"))

    @functools.cached_property
    def tunable(self) -> dict[str, torch.Size]:
        """Shapes of the weights that a synthesis reads, by name, in the order of the site "weights"."""
        named = self.named_parameters()
        return {name: weight.shape for name, weight in named if not name.startswith(self.mapping_names)}

    def _weight_site(self) -> Site:
        return Site(WEIGHTS, "weight", (sum(shape.numel() for shape in self.tunable.values()),))

    def _by_own_weights(
        self, render: Callable[[Tensor, Taps], Tensor | Features], styles: Tensor, taps: Taps
    ) -> Tensor | Features:
        """What ``render`` makes of styles and taps if each image has weights of its own, one image after another.

        Raises:
            InputError: If a tap at the weights is no sum without a mask.
        """
        change = taps.sum_at(WEIGHTS)
        if change is None or change.mask is not None:
            raise InputError("Weights take one change that is added to them, without a mask.")
        module, found = _Rendering(self), []
        # Kernels know no gradient of a weight.
        with using("reference"):
            for index, delta in enumerate(change.delta):
                own = styles[index : index + 1] if len(styles) > 1 else styles
                given = render, own, taps.without(WEIGHTS, index)
                found.append(functional_call(module, self._changed(delta), given))
        if isinstance(found[0], Tensor):
            return torch.cat(found)
        return Features({name: torch.cat([each[name] for each in found]) for name in found[0]})

    def _changed(self, delta: Tensor) -> dict[str, Tensor]:
        """The weights of a synthesis with a change `[N]`, by name in :class:`_Rendering`."""
        own, parts = dict(self.named_parameters()), delta.split([shape.numel() for shape in self.tunable.values()])
        pairs = zip(self.tunable.items(), parts)
        return {f"generator.{name}": own[name].detach() + part.view(shape) for (name, shape), part in pairs}

    def site(self, name: str) -> Site:
        """Return the site called ``name``.

        Raises:
            InputError: If the generator has none of that name; the message lists the sites of its kind.
        """
        if name not in self.sites:
            raise InputError(f"This generator has no site {name!r}. It has: {', '.join(self.sites)}.")
        return self.sites[name]

    def label_tensor(self, label: Tensor | int | None, batch: int) -> Tensor | None:
        """A label (class number, vector or batch of vectors) as `[B, label_dim]`.

        Raises:
            InputError: If the generator has no labels but one was given, none was given although it needs one, or it
                does not fit.
        """
        if not self.label_dim:
            if label is not None and torch.as_tensor(label).numel() > 0:
                raise InputError("This generator takes no label; leave label=None.")
            return None
        if label is None:
            raise InputError(f"This generator needs a label: a class number below {self.label_dim} or a vector.")
        given = torch.as_tensor(label, device=self.device)
        if given.dim() == 0:
            if not 0 <= int(given) < self.label_dim:
                raise InputError(f"label {int(given)} is not among the {self.label_dim} classes (counted from 0).")
            given = F.one_hot(given.long(), self.label_dim)
        given = given.to(self.dtype).reshape(-1, given.shape[-1])
        if given.shape[1] != self.label_dim or given.shape[0] not in (1, batch):
            expected = f"[{self.label_dim}] or [{batch}, {self.label_dim}]"
            raise InputError(f"label has shape {list(torch.as_tensor(label).shape)}; allowed is {expected}.")
        return given.expand(batch, -1)

    def freeze(self) -> AbstractGenerator:
        """Switch to evaluation and ask no weight for a gradient. Returns itself."""
        return self.eval().requires_grad_(False)

    def sample_z(self, count: int, seed: int) -> Tensor:
        """Standard normal noise `[count, z_dim]`, the same for a seed on every device."""
        source = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.z_dim, generator=source).to(self.device, self.dtype)

    @torch.no_grad()
    def statistics(self, label: Tensor | int | None = None, samples: int = STATISTICS_SAMPLES) -> LatentStatistics:
        """Moments of w for a label, from ``samples`` random mappings; computed once per label."""
        key = (_label_key(label), samples)
        if key not in self._statistics:
            z = self.sample_z(samples, seed=0)
            w = torch.cat([self.mapping(part, label)[:, 0] for part in z.split(500)])
            self._statistics[key] = LatentStatistics.from_samples(w)
        return self._statistics[key]

    def mean_styles(self, label: Tensor | int | None = None) -> Tensor:
        """Styles in the middle of the random ones for a label, `[L, D]`: the mean w in all slots."""
        return self.statistics(label).mean_w.expand(self.num_styles, -1)

    def style_factor(self, label: Tensor | int | None = None) -> Tensor:
        """A factor of the covariance of a random style for a label, `[D, D]`, float64."""
        return self.statistics(label).factor_w

    @torch.no_grad()
    def style_axes(self, label: Tensor | int | None = None) -> Tensor:
        """A factor of the covariance of w for a label, as ``factor_w`` is, along principal axes: `[D, D]`, float64.

        Its columns are equally likely steps, and are orthogonal in what the style layers make of them: the last column
        changes their input most. They are the whitened directions of SeFa (Shen and Zhou, 2021, arXiv 2007.06600, Eq.
        4 to 6). Where no layer reads styles linearly it is ``factor_w``. Computed once per label.
        """
        key = (_label_key(label),)
        if key not in self._style_axes:
            factor, layers = self.statistics(label).factor_w, find_style_layers(self)
            if layers:
                changes = stacked(layers, range(self.num_styles)).to(factor) @ factor
                factor = factor @ torch.linalg.eigh(changes.t() @ changes).eigenvectors
            self._style_axes[key] = factor
        return self._style_axes[key]

    def class_deviation(self) -> Tensor:
        """Standard deviation of the class embeddings over the classes `[E]`, where there is a site of them."""
        raise InputError("No layer of this generator reads a class embedding.")

    def _typical_styles(self, samples: int) -> Tensor:
        """Random styles `[N, L, D]` by which features are measured."""
        return self.mapping(self.sample_z(samples, seed=1), 0 if self.label_dim else None)

    @torch.no_grad()
    def feature_deviation(self, site: str, samples: int = 32) -> Tensor:
        """Standard deviation of each channel of a feature site `[C]` over random samples and positions."""
        if site not in self._feature_deviation:
            # Later ones may be so large that they are not measured before they are asked for.
            features = [name for name, found in self.sites.items() if found.kind == "feature"]
            names = [n for n in features[: features.index(site) + 1] if n not in self._feature_deviation]
            styles = self._typical_styles(samples)
            chunks = [self.synthesis(part, until=names) for part in styles.split(8)]
            for name in names:
                stacked = torch.cat([chunk[name] for chunk in chunks])  # type: ignore[index]
                self._feature_deviation[name] = stacked.std(dim=(0, 2, 3)).clamp_min(1e-6)
        return self._feature_deviation[site]

    @torch.no_grad()
    def padding_deviation(self, site: str, samples: int = 32) -> Tensor:
        """Standard deviation of each channel of what the padding at a site surrounds `[C]`, or replaces, likewise."""
        if site not in self._padding_deviation:
            styles = self._typical_styles(samples)
            stacked = torch.cat([self._surrounded(site, part) for part in styles.split(8)])
            self._padding_deviation[site] = stacked.std(dim=(0, 2, 3)).clamp_min(1e-6)
        return self._padding_deviation[site]

    def _surrounded(self, site: str, styles: Tensor) -> Tensor:
        """What the padding at a site surrounds, `[B, C, h, w]`, for styles `[B, L, D]`; where there are such sites."""
        raise InputError(f"This generator has no padding at a site {site!r}.")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and canonical float32 values of all arrays; stored in every solution."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, tensor in sorted(self.state_dict().items()):
                array = np.ascontiguousarray(tensor.detach().cpu().contiguous().float().numpy())
                digest.update(f"{name}{array.shape}".encode())
                digest.update(array.tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint
