"""Toy generators with known answers, and metrics that say what a test wants to hear."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from saminv._types import Latents
from saminv.generators import AbstractGenerator, BigGANDeep, BigGANDeepConfig, StyleGAN2, StyleGAN2Config
from saminv.metrics._base import AbstractMetric, Prepared
from saminv.metrics.pixel import MSE
from saminv.optim import Objective, Problem
from saminv.regions import Regions
from saminv.sites import Site, Tap, Taps
from saminv.spaces import AbstractStyleSpace, resolve_spaces
from saminv.spaces._base import SpaceOptions


@torch.no_grad()
def toy_stylegan2(dtype: torch.dtype = torch.float32, seed: int = 0, **settings) -> StyleGAN2:
    """A frozen random StyleGAN2 of 32 pixels whose noise, biases and mean w all matter."""
    fields = {
        "resolution": 32,
        "z_dim": 12,
        "w_dim": 12,
        "channel_base": 320,
        "channel_max": 12,
        "mapping_layers": 2,
        "learning_rate_multiplier": 1.0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = StyleGAN2(StyleGAN2Config(**(fields | settings)))
        for layer in generator.layers:
            layer.noise_strength.uniform_(0.1, 0.3)
            layer.bias.normal_(std=0.2)
        for torgb in generator.torgb.values():
            torgb.weight.mul_(0.25)
            torgb.bias.normal_(std=0.1)
        label = torch.eye(generator.label_dim)[:1] if generator.label_dim else None
        z = generator.sample_z(500, seed=1)
        generator.w_avg.copy_(generator.mapping(z, label)[:, 0].mean(dim=0))
    generator.freeze()
    return generator.to(dtype)  # type: ignore[return-value]


@torch.no_grad()
def toy_biggan_deep(dtype: torch.dtype = torch.float32, seed: int = 0, **settings) -> BigGANDeep:
    """A frozen random BigGAN-deep of 32 pixels whose attention, classes and statistics of every truncation matter."""
    fields = {
        "z_dim": 6,
        "embed_dim": 5,
        "label_dim": 4,
        "width": 4,
        "blocks": ((False, 8, 8), (True, 8, 4), (False, 4, 4), (True, 4, 4), (True, 4, 2)),
        "attention": 3,
        "num_statistics": 11,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = BigGANDeep(BigGANDeepConfig(**(fields | settings)))
        generator.first.weight.normal_(std=0.3)
        for name, parameter in generator.named_parameters():
            if name.endswith("condition.weight"):
                parameter.normal_(std=0.15)
        for name, table in generator.named_buffers():
            if name.endswith("variances"):
                table.uniform_(0.1, 0.6)
            elif name.endswith("means"):
                table.normal_(std=0.1)
        if generator.attention is not None:
            generator.attention.gain.fill_(0.5)
    generator.freeze()
    return generator.to(dtype)  # type: ignore[return-value]


TOYS: dict[str, Callable[..., AbstractGenerator]] = {
    "stylegan2": toy_stylegan2,
    "biggan_deep": toy_biggan_deep,
}
"""Small random generators by family; each takes a dtype and settings of its configuration."""


def toy(family: str, dtype: torch.dtype = torch.float32, **settings) -> AbstractGenerator:
    """A frozen random generator of a family, small enough to try everything on."""
    return TOYS[family](dtype, **settings)


def usual_label(generator: AbstractGenerator) -> int | None:
    """A label for a generator that needs one."""
    return 1 if generator.label_dim else None


class LinearGenerator(AbstractGenerator):
    """A generator that is linear in its styles and features: ``F<l> = F<l-1> + M_l w_l``, the image is the last F.

    Squared errors therefore have their minima in closed form, see :meth:`best_styles`.
    """

    def __init__(self, num_styles: int = 3, style_dim: int = 4, side: int = 8, seed: int = 0) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        shape = (num_styles, 3 * side * side, style_dim)
        matrices = torch.randn(shape, generator=source, dtype=torch.float64) / (4 * num_styles * style_dim) ** 0.5
        self.matrices = nn.Parameter(matrices)
        self.num_styles, self.style_dim, self.z_dim, self.side = num_styles, style_dim, style_dim, side
        self.image_size = (side, side)
        names = [f"F{layer}" for layer in range(num_styles)]
        sites = [Site("styles", "styles", (num_styles, style_dim))]
        self.sites = {site.name: site for site in sites + [Site(n, "feature", (3, side, side)) for n in names]}
        self.default_spaces = ("W+", *names[1:])
        self.freeze()

    def mapping(self, z: Tensor, label: Tensor | int | None = None, truncation: float = 1.0) -> Tensor:
        return (truncation * z)[:, None].repeat(1, self.num_styles, 1)

    def synthesis(
        self,
        styles: Tensor,
        taps: Iterable[Tap] = (),
        *,
        noise: str = "const",
        truncation: float = 1.0,
        until: str | Sequence[str] | None = None,
    ) -> Tensor | dict[str, Tensor]:
        taps = Taps(taps, self.sites)
        styles = taps.apply("styles", styles)
        found, x = {"styles": styles}, 0.0
        for layer in range(self.num_styles):
            grown = (styles[:, layer] @ self.matrices[layer].t()).reshape(-1, 3, self.side, self.side)
            x = found[f"F{layer}"] = taps.apply(f"F{layer}", x + grown)
        if until is None:
            return x
        return {name: found[name] for name in ([until] if isinstance(until, str) else until)}

    def best_styles(self, target: Tensor) -> Tensor:
        """Styles `[B, L, D]` of least squared error to ``target`` `[B, 3, H, W]`."""
        columns = torch.cat(list(self.matrices), dim=1)
        found = torch.linalg.lstsq(columns, target.flatten(1).t()).solution
        return found.t().reshape(-1, self.num_styles, self.style_dim)


class SaysNan(MSE):
    """Squared error that is not a number for some rows at some calls of a solve (counted from 0)."""

    def __init__(self, rows: Sequence[int], call: int) -> None:
        super().__init__()
        self.rows, self.call, self.calls = list(rows), call, 0

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        score = super()._score(image, prepared)
        broken = torch.zeros_like(score)
        if self.calls == self.call:
            broken[self.rows] = torch.nan
        self.calls += 1
        return score + broken


class PlantedErrors(AbstractMetric):
    """Error maps that depend on nothing but the space each pixel is in; :meth:`watch` is the callback that tells it.

    ``table`` `[S, B, 1, H, W]` holds the error of each pixel in each of S spaces.
    """

    name = "planted"

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table, self.labels = table, torch.zeros_like(table[0, :, 0], dtype=torch.int64)
        self.history: list[Tensor] = []

    def watch(self, step, state, evaluation) -> None:
        self.labels = state.problem.regions.labels
        self.history.append(self.labels)

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return (target,)

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        return self.table.gather(0, self.labels[None, :, None])[0]

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        return (image - prepared.tensors[0]).abs().mean(dim=(1, 2, 3))


def halves(generator: AbstractGenerator, batch: int, spaces: Sequence[str], **settings) -> Regions:
    """Regions that cut each image into as many slanted bands as there are spaces; each image's begin elsewhere."""
    height, width = generator.image_size
    slant = torch.arange(width) + torch.arange(height)[:, None] // 2
    band = max(1, (width + height // 2) // len(spaces))
    labels = torch.stack([((slant + 3 * row) // band) % len(spaces) for row in range(batch)])
    return Regions(labels, tuple(spaces), **settings)


L2_ONLY = Objective(weights={"l2": 1.0})


def plain_problem(linear: AbstractGenerator, names: Sequence[str] = ("W+",), count: int = 1, **settings) -> Problem:
    """Squared error only, on targets that the linear generator cannot make."""
    return toy_problem(linear, names, target=random_pictures(count), batch=count, objective=L2_ONLY, **settings)


def same_latents(a: Latents, b: Latents, rows: slice | Tensor = slice(None)) -> bool:
    """Whether the ``rows`` of all tensors of ``b`` are the tensors of ``a`` to the bit."""
    return all(torch.equal(a[space][key], tensor[rows]) for space, value in b.items() for key, tensor in value.items())


def toy_problem(
    generator: AbstractGenerator,
    names: Sequence[str],
    *,
    batch: int = 1,
    seed: int = 3,
    target: Tensor | None = None,
    styles: Tensor | None = None,
    objective: Objective | None = None,
    options: SpaceOptions | None = None,
    regions: Regions | None = None,
    frozen: Iterable[str] = (),
) -> Problem:
    """Targets that are other samples than the start, mixed regions, squared error and all regularisers."""
    label = usual_label(generator)
    spaces = resolve_spaces(names, generator, options or SpaceOptions(label=label))
    order = [s.name for s in spaces if s.spatial or isinstance(s, AbstractStyleSpace)]
    if target is None:
        sample = generator.synthesis(generator.mapping(generator.sample_z(batch, seed + 100), label))
        assert isinstance(sample, Tensor)
        target = sample.clamp(-1, 1)
    if styles is None:
        styles = generator.mapping(generator.sample_z(batch, seed), label)
    return Problem(
        generator=generator,
        target=target,
        styles=styles,
        spaces=spaces,
        regions=regions or halves(generator, len(target), order),
        objective=objective or Objective(),
        frozen=frozenset(frozen),
    )


def perturbed(problem: Problem, scale: float = 0.1, seed: int = 5) -> dict[str, dict[str, Tensor]]:
    """Latents some way off the start, different for each image but the same whatever the batch around it."""
    y = problem.start()
    for value in y.values():
        for name, tensor in value.items():
            source = torch.Generator().manual_seed(seed)
            noise = [torch.randn(tensor.shape[1:], generator=source, dtype=torch.float64) for _ in tensor]
            value[name] = tensor + scale * torch.stack(noise).to(tensor)
    return y


def random_pictures(count: int, side: int = 8, seed: int = 0) -> Tensor:
    """Uniform grain `[count, 3, side, side]` in [-1, 1], float64."""
    source = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=source, dtype=torch.float64) * 2 - 1
