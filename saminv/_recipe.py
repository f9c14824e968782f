"""How pictures are inverted with one generator; the pictures come in afterwards.

A :class:`Recipe` is the same for all pictures of a run. It turns pictures into a :class:`Job`, which is a problem with
its solver, and the solver's result into a :class:`saminv.Solution` that says where it comes from.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import InputError, Status
from ._target import Target
from ._types import Latents
from ._version import __version__
from .encoders import AbstractEncoder
from .generators import AbstractGenerator
from .images import Picture, fit
from .metrics import get_metric
from .metrics._base import AbstractMetric
from .optim import (
    AbstractSolver,
    BestSoFar,
    Escalate,
    Objective,
    PlateauStop,
    Problem,
    StopAt,
    solve,
)
from .optim.objective import PAPER_WEIGHTS
from .optim.precision import Precision
from .optim.slots import Slots
from .optim.start import domain_distance, nearest_styles
from .regions import Regions
from .segment import (
    PREDICTED_TAU,
    SEGMENTERS,
    AbstractInvertibility,
    AbstractSegmenter,
    GivenRegions,
    PredictedInvertibility,
    Segments,
)
from .segment.allocate import SegmentErrors, Tau, thresholds
from .solution import Solution
from .spaces import AbstractSpace, AbstractStyleSpace, cut_off, resolve_spaces, warm_values
from .spaces._base import SpaceOptions, latent_styles

DEFAULT_TAU = 0.3
FAR_TAU = 0.15
"""The default for pictures far from the domain: their W+ is too poor to give up likeness for it."""
START_TRUNCATION = 0.3
"""How far towards the nearest sample a run starts, from the mean w: from farther on, some cannot turn back."""
FAR_FROM_DOMAIN = 2.1
"""Distance to the nearest sample, relative to that between samples, above which a picture counts as far."""


@dataclass(frozen=True)
class Recipe:
    """How to invert any picture with one generator; the attributes are the arguments of :func:`saminv.invert`.

    Attributes:
        candidates: Spaces among which segments are shared out, the most editable first.
        target: That each picture has to reach by a τ of its own; None where ``tau`` says it.
        fallback: Measure the invertibility of pictures far from the domain, of which a network knows nothing.
        weights: Of all parts of the objective.
        descent: The solver without its wrappers.
        before: What is inverted first; each begins where the one before has ended, and this last.
        preset: Name of the published way that these stages are, if they are one.
        frozen: Spaces that stay where they start.
        stop_at: Size of parts of the loss at which a picture is done.
        domain: Encoder that the part "domain" of the objective asks, if there is one.
    """

    generator: AbstractGenerator
    spaces: tuple[AbstractSpace, ...]
    candidates: tuple[str, ...]
    metric: AbstractMetric
    options: SpaceOptions
    tau: Tau | None
    target: Target | None
    segmenter: AbstractSegmenter
    invertibility: Any
    fallback: bool
    encoder: Any
    weights: Mapping[str, float]
    losses: Mapping[str, AbstractMetric]
    descent: AbstractSolver
    frozen: tuple[str, ...]
    stop_at: Mapping[str, float]
    noise: str
    fit_mode: str
    steps: int
    seed: int
    precision: Precision
    graph: str
    before: tuple[Recipe, ...] = ()
    preset: str | None = None
    domain: AbstractEncoder | None = None

    @property
    def stages(self) -> tuple[Recipe, ...]:
        """What is inverted, one after the other."""
        return (*self.before, replace(self, before=()))

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Draw random numbers from the recipe's seed, and leave torch's own state as it was."""
        device = self.generator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            yield

    def prepare(self, pictures: Sequence[Picture]) -> Job:
        """The problem of some pictures, with its solver.

        Raises:
            InputError: If something that was given per picture does not fit them.
        """
        fitted = [fit(picture, self.generator.image_size, self.fit_mode) for picture in pictures]
        target = torch.cat([tensor for tensor, _ in fitted]).to(self.generator.device, self.generator.dtype)
        styles, warm, distance = _start(self, target)
        segments = self.segmenter(target)
        usual = PREDICTED_TAU if isinstance(self.invertibility, PredictedInvertibility) else DEFAULT_TAU
        taus = _picture_taus(self.tau, distance, target, usual)
        each = thresholds(self.tau if isinstance(self.tau, Mapping) else taus, segments, usual=taus)
        measured = _measured(self, distance, target)
        regions = _regions(self, segments, target, each, measured)
        if isinstance(self.encoder, AbstractEncoder):
            styles, warm = _encoded(self, self.encoder, target, regions)
        formulation = self.options.formulation
        problem = Problem(
            self.generator,
            target,
            styles,
            self.spaces,
            regions,
            Objective(self.metric, self.weights, clamp=formulation == "published", losses=self.losses),
            noise=self.noise,
            warm=warm,
            frozen=frozenset(self.frozen),
            encode=None if self.domain is None else functools.partial(_styles_of, self.domain, self.generator),
        )
        _check_parts(self.weights, problem)
        return Job(
            self,
            problem,
            self.solver(segments, each, measured),
            segments,
            [picture.name for picture in pictures],
            [crop.to_dict() for _, crop in fitted],
            {"tau": taus}
            | ({} if distance is None else {"domain_distance": distance})
            | ({"measured": measured.to(taus)} if self.fallback else {}),
        )

    def solver(self, segments: Segments, taus: Tensor, measured: Tensor) -> AbstractSolver:
        """The descent, which measures invertibility on the way for the pictures ``measured`` `[B]`.

        All pictures of a recipe have solvers of one form, so that they can share a batch.
        """
        solver: AbstractSolver = BestSoFar(self.descent)
        for part, value in self.stop_at.items():
            solver = StopAt(solver, part, value)
        ids = segments.ids.to(self.generator.device)
        if self.fallback:
            return Escalate(PlateauStop(solver, watched=~measured), self.metric, ids, taus, measured=measured)
        if bool(measured.any()):
            return Escalate(solver, self.metric, ids, taus)
        return PlateauStop(solver)

    def slots(self, solver: AbstractSolver, max_steps: int) -> Slots:
        """Slots whose steps are taken as the recipe says."""
        return Slots(solver, max_steps, self.precision, self.graph)

    def solve(self, problem: Problem, solver: AbstractSolver, y0: Latents | None = None, **settings: Any) -> Solution:
        """Minimise a problem by steps as the recipe says; further arguments as for :func:`saminv.solve`."""
        return solve(problem, solver, y0, precision=self.precision, graph=self.graph, **settings)

    def follow(self, pictures: Sequence[Picture], job: Job, progress: bool = False) -> Solution:
        """Invert pictures stage by stage; ``job`` is that of the first one."""
        solution: Solution | None = None
        for stage in self.stages:
            if solution is not None:
                job = replace(stage, encoder=solution).prepare(pictures)
            solution = job.finish(stage.solve(job.problem, job.solver, max_steps=stage.steps, progress=progress))
            if Status.INTERRUPTED in solution.statuses:
                break
        assert solution is not None
        return replace(solution, provenance={**solution.provenance, **self.settings, "spaces": list(solution.latents)})

    def warn_of_inert(self) -> None:
        """Warn of variables that cannot change the picture."""
        if not any(space.twin for space in self.spaces):
            return
        styles = self.generator.mean_styles(self.options.label).to(self.generator.device, self.generator.dtype)
        inert = cut_off(self.generator, self.spaces, styles[None])
        if inert:
            twins = ", ".join(space.name for space in self.spaces if space.twin)
            warnings.warn(
                f"{', '.join(inert)} cannot change the picture: {twins} replaces what comes of it. Only the picture "
                f"without {twins}, which is inverted at the same time, depends on it.",
                UserWarning,
                stacklevel=3,
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What a solution says about how it was made, as plain JSON values."""
        return {
            "saminv": __version__,
            "generator": self.generator.name,
            "fingerprint": self.generator.fingerprint,
            "spaces": [space.name for space in self.spaces],
            **self.options.to_dict(),
            "tau": dict(self.tau) if isinstance(self.tau, Mapping) else self.tau if self.target is None else "auto",
            "target": None if self.target is None else {"stat": self.target.stat, "value": self.target.value},
            "metric": self.metric.name,
            "steps": sum(stage.steps for stage in (*self.before, self)),
            "preset": self.preset,
            "frozen": list(self.frozen),
            "stop_at": dict(self.stop_at),
            "seed": self.seed,
            "noise": self.noise,
            "precision": self.precision.name,
            "weights": dict(self.weights),
            "losses": {name: loss.name for name, loss in self.losses.items()},
            "invertibility": _name_of(self.invertibility),
            "segmenter": SEGMENTERS.name_of(type(self.segmenter)),
        }


@dataclass(frozen=True)
class Job:
    """Pictures on their way through a recipe.

    Attributes:
        segments: Of the pictures.
        names, crops: Of the pictures, one each.
        found: Numbers that are known before the solve, each `[B]`.
    """

    recipe: Recipe
    problem: Problem
    solver: AbstractSolver
    segments: Segments
    names: list[str]
    crops: list[dict[str, Any]]
    found: dict[str, Tensor]

    def select(self, rows: Tensor) -> Job:
        """The job of the pictures ``rows`` `[N]`."""
        numbers = rows.tolist()
        return replace(
            self,
            problem=self.problem.select(rows),
            segments=replace(self.segments, ids=self.segments.ids[rows]),
            names=[self.names[row] for row in numbers],
            crops=[self.crops[row] for row in numbers],
            found={name: value[rows] for name, value in self.found.items()},
        )

    @torch.no_grad()
    def finish(self, solution: Solution) -> Solution:
        """Add metrics and provenance to what the solver found."""
        recipe = self.recipe
        stats = dict(solution.stats)
        stats["mse"] = (solution.image - solution.target).square().mean(dim=(1, 2, 3))
        stats["ssim"] = get_metric("ssim").compare(solution.image, solution.target)
        stats[recipe.metric.name] = recipe.metric.compare(solution.image, solution.target)
        stats |= self.found
        for name in solution.regions.spaces:
            stats[f"share/{name}"] = solution.regions.share(name)
        provenance = {
            **recipe.settings,
            "spaces": list(solution.latents),
            "names": self.names,
            "crops": self.crops,
            "segment_names": {str(key): value for key, value in self.segments.names.items()},
        }
        return replace(solution, stats=stats, provenance=provenance, segments=self.segments.ids)

    def warn_of_foreign(self) -> None:
        """Warn of pictures that look far from what the generator makes."""
        for name, value in zip(self.names, self.found.get("domain_distance", torch.empty(0)).tolist()):
            if value > FAR_FROM_DOMAIN:
                warnings.warn(far_sentence(name, value), UserWarning, stacklevel=3)


def far_sentence(name: str, distance: float) -> str:
    """What is said of a picture that far from the domain."""
    return (
        f"{name} looks far from what the generator makes: its nearest sample is {distance:.1f} times as far away as "
        f"samples are from each other (more than {FAR_FROM_DOMAIN:g} is unusual). Expect later layers to be used for "
        "most of it, and weak edits."
    )


def _check_parts(weights: Mapping[str, float], problem: Problem) -> None:
    """Raise for weights of parts that the objective does not have."""
    known = dict.fromkeys([*PAPER_WEIGHTS, *problem.objective.losses, *problem.penalties(problem.start())])
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise InputError(f"The objective has no part {', '.join(map(str, unknown))}. It has: {', '.join(known)}.")


def _start(recipe: Recipe, target: Tensor) -> tuple[Tensor, dict | None, Tensor | None]:
    """Start styles `[B, L, D]`, warm values of further spaces, and the distance to the nearest sample `[B]`.

    The styles of an encoder come later: some have to know the regions, which depend on the distance.
    """
    encoder, generator, batch = recipe.encoder, recipe.generator, len(target)
    if isinstance(encoder, Solution):
        if len(encoder) != batch:
            raise InputError(f"The solution to start from has {len(encoder)} images, but there are {batch} pictures.")
        if encoder.provenance.get("fingerprint") != generator.fingerprint:
            raise InputError("The solution to start from belongs to another generator; start from 'auto' instead.")
        spaces = resolve_spaces(list(encoder.latents), generator, SpaceOptions(label=recipe.options.label))
        styles, distance = latent_styles(generator, spaces, encoder.latents), encoder.stats.get("domain_distance")
        return styles, encoder.latents, None if distance is None else distance.to(target)
    if isinstance(encoder, (Tensor, np.ndarray)):
        encoder, shape = torch.as_tensor(encoder), (generator.num_styles, generator.style_dim)
        if tuple(encoder.shape) not in {shape, (1, *shape), (batch, *shape)}:
            raise InputError(f"Start styles must be {list(shape)} or {[batch, *shape]}, got {list(encoder.shape)}.")
        if not bool(torch.isfinite(encoder).all()):
            raise InputError("Start styles must be finite numbers.")
        styles = encoder.detach().to(target).reshape(-1, *shape)
        return styles.expand(batch, -1, -1), None, None
    mean = generator.mean_styles(recipe.options.label).to(target)
    if isinstance(encoder, AbstractEncoder):
        distance = domain_distance(generator, target, recipe.seed, recipe.options.label)
        return mean.expand(batch, -1, -1), None, distance
    if encoder in ("mean", "none"):
        return mean.expand(batch, -1, -1), None, None
    styles, distance = nearest_styles(generator, target, recipe.metric, recipe.seed, recipe.options.label)
    return styles if encoder == "nearest" else mean.lerp(styles, START_TRUNCATION), None, distance


@torch.no_grad()
def _encoded(
    recipe: Recipe, encoder: AbstractEncoder, target: Tensor, regions: Regions
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """Styles `[B, L, D]` and values of further spaces as an encoder says them of targets."""
    found = encoder.encode(target, recipe.generator, regions)
    styles = found["W+"]["w"].to(target)
    return styles, warm_values(recipe.generator, recipe.spaces, styles, found)


def _styles_of(encoder: AbstractEncoder, generator: AbstractGenerator, image: Tensor, regions: Regions) -> Tensor:
    """Styles `[B, L, D]` that an encoder says of pictures; differentiable."""
    return encoder.encode(image, generator, regions)["W+"]["w"].to(image)


def _picture_taus(tau: Tau | None, distance: Tensor | None, target: Tensor, usual: float) -> Tensor:
    """The threshold of each picture `[B]`; of its classes without one of their own."""
    named = tau.get("*") if isinstance(tau, Mapping) else tau
    value = usual if named is None else named
    taus = torch.full((len(target),), value, dtype=torch.float64, device=target.device)
    if named is None and distance is not None:
        taus[distance > FAR_FROM_DOMAIN] = FAR_TAU
    return taus


def known_errors(recipe: Recipe, segments: Segments, target: Tensor) -> SegmentErrors:
    """Errors of the segments of targets by the recipe's network or maps; those of the last space need not be known."""
    given, names = recipe.invertibility, recipe.candidates
    maps = dict(given(target))
    if not isinstance(given, PredictedInvertibility):
        return SegmentErrors.of(maps, segments, names)
    errors = SegmentErrors.of({names[-1]: torch.zeros_like(target[:, :1]), **maps}, segments, names)
    styles = any(space.name == names[0] and isinstance(space, AbstractStyleSpace) for space in recipe.spaces)
    return errors.relieved() if styles and len(names) > 1 else errors


def _measured(recipe: Recipe, distance: Tensor | None, target: Tensor) -> Tensor:
    """`[B]`, the pictures whose invertibility is measured on the way."""
    if recipe.fallback and distance is not None:
        return distance > FAR_FROM_DOMAIN
    measured = isinstance(recipe.invertibility, str) and len(recipe.candidates) > 1
    return torch.full((len(target),), measured, device=target.device)


def _regions(recipe: Recipe, segments: Segments, target: Tensor, taus: Tensor, measured: Tensor) -> Regions:
    """Regions to begin with; those of ``measured`` pictures are all in the first space."""
    given, formulation = recipe.invertibility, recipe.options.formulation
    if isinstance(given, Regions):
        return replace(given, formulation=formulation)
    if isinstance(given, GivenRegions):
        return given(target, formulation=formulation)
    if isinstance(given, AbstractInvertibility):
        found = known_errors(recipe, segments, target).allocate(taus, formulation)
        return found.with_labels(found.labels.masked_fill(measured[:, None, None], 0))
    names = recipe.candidates
    size = (target.shape[-2], target.shape[-1])
    return Regions.uniform(len(target), size, names, names[0], formulation=formulation, device=target.device)


def _name_of(thing: Any) -> str:
    if isinstance(thing, PredictedInvertibility):
        return "predicted"
    return thing if isinstance(thing, str) else type(thing).__name__
