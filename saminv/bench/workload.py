"""A step of full size with random weights: nothing is downloaded, and the cost does not depend on the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .._errors import InputError
from .._open import load_generator
from ..generators import AbstractGenerator
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ..metrics.lpips import LPIPS, backbone_shapes
from ..optim import Adam, Objective, Problem
from ..optim.precision import PRECISIONS, find_precision
from ..optim.slots import Slots
from ..regions import Regions
from ..spaces import AbstractStyleSpace, resolve_spaces
from .compiled import CompiledProblem
from .plain import plain

FORMULATIONS = ("lean", "plain", "compiled")
COMMON_WEIGHTS = {"l2": 15.0, "perceptual": 1.0}
"""Of a descent: reconstruction alone, so that every contender minimises the same."""


@dataclass(frozen=True)
class Workload:
    """What is to be timed.

    Attributes:
        resolution: Of the generator; its channels are those of StyleGAN2's configuration f.
        batch: Images.
        spaces: That are optimised; style space and spatial ones have a vertical stripe of the picture each.
        formulation: "lean" is the library's own, "plain" the usual one, which computes the target's features anew at
            every step as well, "compiled" the lean one by torch.compile.
        device: Of everything.
        precision: Of the steps of the lean formulation, as for :func:`saminv.invert`; the others take "tf32".
        graph: Whether those are replayed as one CUDA graph, likewise; the others never are.
        generator: "random" for a StyleGAN2 with random weights, else what :func:`saminv.load_generator` takes.
        channel_base, channel_max, net: Of a smaller generator and another LPIPS, for tests.
    """

    resolution: int = 256
    batch: int = 1
    spaces: tuple[str, ...] = ("W+",)
    formulation: str = "lean"
    device: str = "cpu"
    precision: str = "auto"
    graph: str = "auto"
    generator: str = "random"
    channel_base: int = 32768
    channel_max: int = 512
    net: str = "vgg"

    def __post_init__(self) -> None:
        if self.formulation not in FORMULATIONS:
            raise InputError(f"formulation must be one of {', '.join(FORMULATIONS)}; got {self.formulation!r}.")
        if self.batch < 1:
            raise InputError(f"batch must be at least 1, got {self.batch}.")

    @property
    def words(self) -> str:
        """The workload in words."""
        size = f"{self.resolution} x {self.resolution}" if self.generator == "random" else Path(self.generator).name
        size = f"{size}, batch {self.batch}, {' '.join(self.spaces)}"
        return f"{self.formulation}, {size}{'' if self.precision == 'auto' else f', {self.precision}'}"

    @property
    def config(self) -> StyleGAN2Config:
        """Of a generator with random weights."""
        return StyleGAN2Config(self.resolution, channel_base=self.channel_base, channel_max=self.channel_max)

    def with_formulation(self, formulation: str) -> Workload:
        """The same one otherwise formulated."""
        return replace(self, formulation=formulation)


class Steps:
    """A workload that is ready to take steps.

    Attributes:
        slots: The images, with Adam at its published rate.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        problem = build_problem(workload)
        # So many that no image ends while it is timed.
        lean = workload.formulation == "lean"
        precision = find_precision(workload.precision, problem.generator) if lean else PRECISIONS["tf32"]
        self.slots: Slots = Slots(Adam(rate=0.05), 10**6, precision, workload.graph if lean else "off")
        self.slots.enter(problem, range(workload.batch))

    @property
    def problem(self) -> Problem:
        """As it stands now."""
        assert self.slots.state is not None
        return self.slots.state.problem

    def take(self) -> None:
        """Take one step, as the formulation does it."""
        if self.workload.formulation == "plain":
            self.recompute()
        self.slots.step()

    def recompute(self) -> None:
        """Compute the target's features anew; they are the same ones."""
        self.problem.objective.prepare(self.problem.target)


def build_problem(workload: Workload) -> Problem:
    """The problem of a workload, whose target is noise: the same one for all formulations."""
    generator = build_generator(workload)
    styles = generator.mapping(generator.sample_z(workload.batch, seed=1))
    target = noise_target(workload.batch, generator.image_size)
    return _problem(workload, generator, target, styles, Objective(build_metric(workload)))


def noise_target(batch: int, size: tuple[int, int]) -> Tensor:
    """Uniform noise `[B, 3, *size]` in [-1, 1], the same in every process."""
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def descent_problem(workload: Workload) -> Problem:
    """A problem whose target the generator has rendered from other styles; it starts at the mean w."""
    generator = build_generator(workload)
    target = generator.synthesis(generator.mapping(generator.sample_z(workload.batch, seed=2)))
    assert isinstance(target, Tensor)
    mean = generator.statistics().mean_w.to(target)
    styles = mean.expand(workload.batch, generator.num_styles, -1).clone()
    return _problem(workload, generator, target, styles, Objective(build_metric(workload), COMMON_WEIGHTS))


def _problem(
    workload: Workload, generator: AbstractGenerator, target: Tensor, styles: Tensor, objective: Objective
) -> Problem:
    spaces = resolve_spaces(list(workload.spaces), generator)
    sharing = tuple(space.name for space in spaces if space.spatial or isinstance(space, AbstractStyleSpace))
    height, width = generator.image_size
    stripes = torch.arange(width) * len(sharing) // width
    regions = Regions(stripes.expand(workload.batch, height, -1).clone(), sharing)
    kind = CompiledProblem if workload.formulation == "compiled" else Problem
    return kind(
        generator=generator,
        target=target.to(workload.device).contiguous(memory_format=torch.channels_last),
        styles=styles,
        spaces=spaces,
        regions=regions.to(workload.device),
        objective=objective,
    )


def build_generator(workload: Workload) -> AbstractGenerator:
    """The frozen generator of a workload."""
    generator: AbstractGenerator
    if workload.generator != "random":
        generator = load_generator(workload.generator, workload.device)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            generator = StyleGAN2(workload.config).requires_grad_(False).eval().to(workload.device)
    if workload.formulation != "plain":
        return generator
    if not isinstance(generator, StyleGAN2):
        raise InputError(f"The plain formulation is one of StyleGAN2, not of {type(generator).__name__}.")
    return plain(generator)


def build_metric(workload: Workload) -> LPIPS:
    """LPIPS with a random backbone, the same one in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LPIPS(workload.net, random_backbone(workload.net)).to(workload.device)


def random_backbone(net: str) -> dict[str, Tensor]:
    """Weights of an LPIPS backbone under torchvision's names, which keep the size of activations."""
    found = {}
    for name, shape in backbone_shapes(net).items():
        fan_in = max(1, torch.Size(shape[1:]).numel())
        found[name] = torch.randn(shape) * (2 / fan_in) ** 0.5 if len(shape) > 1 else torch.zeros(shape)
    return found
