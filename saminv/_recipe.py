"""What the arguments of :func:`saminv.invert` say, as objects; pictures come in afterwards.

A :class:`Recipe` is the same for all pictures of a run. It turns pictures into a :class:`Job`, which is a problem with
its solver, and the solver's result into a :class:`saminv.Solution` that says where it comes from.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import InputError, Status
from ._open import open_generator
from ._presets import PRESETS, Preset
from ._target import Target, make_target
from ._types import Latents
from ._version import __version__
from .encoders import ENCODERS, AbstractEncoder, encoder_for
from .generators import AbstractGenerator
from .images import Picture, fit
from .metrics import get_metric
from .metrics._base import AbstractMetric
from .optim import (
    LBFGS,
    AbstractSolver,
    Adam,
    BestSoFar,
    CoarseToFine,
    Escalate,
    Objective,
    PlateauStop,
    Problem,
    Relay,
    Schedule,
    StopAt,
    solve,
)
from .optim.objective import PAPER_WEIGHTS, PUBLISHED_WEIGHTS
from .optim.precision import Precision, find_precision
from .optim.slots import Slots, check_graph
from .optim.solve import check_steps
from .optim.start import domain_distance, nearest_styles
from .regions import Regions
from .segment import (
    PREDICTED_TAU,
    SEGMENTERS,
    AbstractInvertibility,
    AbstractSegmenter,
    GivenRegions,
    InvertibilityConfig,
    LabelImage,
    PredictedInvertibility,
    Segments,
    find_network,
    load_invertibility,
)
from .segment.allocate import SegmentErrors, Tau, check_tau, thresholds
from .solution import Solution
from .spaces import AbstractSpace, AbstractStyleSpace, cut_off, resolve_spaces, warm_values
from .spaces._base import SpaceOptions, latent_styles, style_base

DEFAULT_TAU = 0.3
FAR_TAU = 0.15
"""The default for pictures far from the domain: their W+ is too poor to give up likeness for it."""
FURTHER_WEIGHT = 0.1
"""Weight of a further loss, as of identity and parsing in the Feature-Style paper (Eq. 8)."""
DEFAULT_STEPS = 300
DEFAULT_RATE = 0.1
LONE_RATE = 0.2
"""The default of a style space that has no other space beside it."""
HIGHEST_RATE = 0.3
"""To which the rate of the style space rises in runs of fewer steps than usual."""
SOLVERS = ("auto", "adam", "coarse-to-fine", "lbfgs", "adam-lbfgs")
STARTS = ("auto", "nearest", "mean", "none")
"""Starts without an encoder, by name."""
START_TRUNCATION = 0.3
"""How far towards the nearest sample a run starts, from the mean w: from farther on, some cannot turn back."""
DEFAULT_FEATURE_RATE = 1.0
DEFAULT_WEIGHT_RATE = 3e-4
"""Of the weights of a generator, as in Pivotal Tuning."""
"""Rate of feature deltas, in units of their channels' standard deviations."""
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


def make_recipe(
    spaces: Sequence[str] | None = None, tau: Any = None, *, preset: str | None = None, **settings: Any
) -> Recipe:
    """The recipe for arguments of :func:`saminv.invert`, with all stages of a preset.

    Raises:
        InputError: For anything unusable, with what is allowed.
    """
    if preset is None:
        return _single(spaces, tau, **settings)
    chosen = PRESETS.get(preset)
    settings = {"spaces": spaces, "tau": tau, **settings}
    _check_preset(chosen, settings)
    settings["generator"] = open_generator(settings.get("generator", "demo"), settings.get("device", "auto"))
    total = settings.get("steps", DEFAULT_STEPS)
    check_steps(total)
    stages = []
    for stage, steps in zip(chosen.stages, chosen.steps(total)):
        given = settings if stage.spaces is None else {**settings, "spaces": stage.spaces}
        weights = {**stage.settings.get("weights", {}), **(settings.get("weights") or {})}
        single = _single(**{**given, **stage.settings, "weights": weights, "steps": steps})
        stages.append(replace(single, preset=preset))
    return replace(stages[-1], before=tuple(stages[:-1]))


def _check_preset(preset: Preset, settings: Mapping[str, Any]) -> None:
    """Raise ``InputError`` for an argument that the preset sets itself; weights may be changed."""
    usual = {name: parameter.default for name, parameter in inspect.signature(_single).parameters.items()}
    own = {name for stage in preset.stages for name in stage.settings} - {"weights"}
    own |= {"spaces"} if any(stage.spaces for stage in preset.stages) else set()
    given = sorted(name for name in own if name in settings and settings[name] != usual[name])
    if given:
        raise InputError(f"preset={preset.name!r} says {', '.join(given)} itself; leave that out, or the preset.")
    if settings["tau"] == "auto":
        raise InputError("A search by tau='auto' takes no preset; what invert() does without one is preset='sam'.")


def _single(
    spaces: Sequence[str] | None = None,
    tau: float | Mapping[str, float] | str | None = None,
    *,
    target_psnr: float | None = None,
    target_lpips: float | None = None,
    generator: str | Path | AbstractGenerator = "demo",
    label: Tensor | int | None = None,
    segmenter: Any = "auto",
    invertibility: Any = "auto",
    metric: str | AbstractMetric = "auto",
    encoder: Any = "auto",
    steps: int = DEFAULT_STEPS,
    formulation: str = "paper",
    tap_point: str = "layer",
    skip: str = "blend",
    weights: Mapping[str, float] | None = None,
    losses: Mapping[str, str | AbstractMetric] | None = None,
    solver: str | AbstractSolver = "auto",
    rate: float | None = None,
    rates: Mapping[str, float] | None = None,
    frozen: Sequence[str] = (),
    stop_at: Mapping[str, float] | None = None,
    noise: str = "const",
    precision: str = "auto",
    graph: str = "auto",
    fit_mode: str = "auto",
    device: str = "auto",
    seed: int = 0,
) -> Recipe:
    """The recipe of one stage.

    Raises:
        InputError: For anything unusable, with what is allowed.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 up, got {seed!r}.")
    check_steps(steps)
    options = SpaceOptions(formulation, tap_point, skip, formulation == "paper", label)  # type: ignore[arg-type]
    opened = open_generator(generator, device)
    searched = isinstance(tau, str) and tau == "auto"
    if not searched and not (target_psnr is None and target_lpips is None):
        raise InputError(f"A target is for tau='auto'; tau is {tau!r}.")
    _check_label(label, opened)
    named = opened.default_spaces if spaces is None else spaces
    resolved = resolve_spaces(named, opened, options)
    suited, candidates = _suited_metric(metric, opened), _candidates(resolved, named)
    known = _invertibility(invertibility, opened, candidates, suited)
    return Recipe(
        generator=opened,
        spaces=resolved,
        candidates=candidates,
        metric=suited.to(opened.device, opened.dtype),
        options=options,
        tau=None if searched or tau is None else check_tau(tau),  # type: ignore[type-var]
        target=make_target(target_psnr, target_lpips, suited.name) if searched else None,
        segmenter=_segmenter(segmenter, suited),
        invertibility=known,
        fallback=isinstance(invertibility, str) and invertibility == "auto" and known != "measured",
        encoder=_encoder(encoder, opened),
        weights=_weights(formulation, losses or {}, weights or {}),
        losses={name: get_metric(loss).to(opened.device, opened.dtype) for name, loss in (losses or {}).items()},
        descent=_descent(solver, rate, rates, options, resolved, steps),
        frozen=_frozen(frozen, resolved),
        stop_at=_stop_at(stop_at or {}),
        noise=noise,
        fit_mode=fit_mode,
        steps=steps,
        seed=int(seed),
        precision=find_precision(precision, opened),
        graph=check_graph(graph),
    )


def _frozen(names: Any, spaces: Sequence[AbstractSpace]) -> tuple[str, ...]:
    known = [space.name for space in spaces]
    if isinstance(names, str) or not isinstance(names, Sequence) or not set(names) < set(known):
        raise InputError(f"frozen must name some of the spaces {', '.join(known)}, and not all of them; got {names!r}.")
    return tuple(names)


def _stop_at(parts: Any) -> dict[str, float]:
    if not isinstance(parts, Mapping):
        raise InputError(f'stop_at must map parts of the loss to sizes, such as {{"perceptual": 0.06}}; got {parts!r}.')
    return dict(parts)


def _weights(formulation: str, losses: Mapping[str, Any], given: Mapping[str, float]) -> dict[str, float]:
    """Weight of each part: of the formulation, of further losses unless said, and as given."""
    usual = PAPER_WEIGHTS if formulation == "paper" else PUBLISHED_WEIGHTS
    return {**dict.fromkeys(losses, FURTHER_WEIGHT), **usual, **given}


def metric_name(metric: str, generator: AbstractGenerator) -> str:
    """The metric that a name stands for: "auto" is the one that suits the generator."""
    suited = "demo" if generator.name == "demo" else "lpips-vgg"
    return suited if metric == "auto" else metric


def _suited_metric(metric: str | AbstractMetric, generator: AbstractGenerator) -> AbstractMetric:
    if isinstance(metric, str):
        metric = get_metric(metric_name(metric, generator))
    if not isinstance(metric, AbstractMetric):
        raise InputError(f"metric must be a name or a metric, not {type(metric).__name__}.")
    if metric.higher_is_better or not metric.spatial:
        raise InputError(
            f"metric={metric.name!r} cannot be minimised segment by segment; use 'demo', 'lpips-vgg' or 'mse'."
        )
    return metric


def _check_label(label: Any, generator: AbstractGenerator) -> None:
    """Raise unless the label is None, a class number, or one vector for all pictures."""
    if label is None or not (generator.label_dim or isinstance(label, str)):
        return
    try:
        found = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0, 0)
    whole = found.dim() == 0 and not found.is_floating_point() and found.dtype != torch.bool
    if not whole and not (found.dim() == 1 and bool(torch.isfinite(found).all())):
        raise InputError(
            f"label must be a class number or one vector of {generator.label_dim} finite numbers for all pictures, "
            f"got {label!r}."
        )


def _check_parts(weights: Mapping[str, float], problem: Problem) -> None:
    """Raise for weights of parts that the objective does not have."""
    known = dict.fromkeys([*PAPER_WEIGHTS, *problem.objective.losses, *problem.penalties(problem.start())])
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise InputError(f"The objective has no part {', '.join(map(str, unknown))}. It has: {', '.join(known)}.")


def _checked_rates(rates: Any, spaces: Sequence[AbstractSpace]) -> Mapping[str, float]:
    names = {space.name: space.family for space in spaces}
    if not isinstance(rates, Mapping) or not set(rates) <= {*names, *names.values()}:
        raise InputError(f"rates must map spaces ({', '.join(names)}) or their first letters to rates, got {rates!r}.")
    return rates


def _descent(
    solver: str | AbstractSolver,
    rate: float | None,
    rates: Mapping[str, float] | None,
    options: SpaceOptions,
    spaces: Sequence[AbstractSpace],
    steps: int,
) -> AbstractSolver:
    """The solver that a name stands for, with the rates that were given or else suit the spaces and the steps."""
    usual = {"F": DEFAULT_FEATURE_RATE} if options.whiten_features else {}
    usual["G"] = DEFAULT_WEIGHT_RATE
    usual |= _style_rate(spaces, options, steps, rate, rates or {})
    adam = Adam(DEFAULT_RATE if rate is None else rate, {**usual, **_checked_rates(rates or {}, spaces)})
    if isinstance(solver, AbstractSolver) or solver == "lbfgs":
        if rate is not None or rates:
            raise InputError(f"rate and rates are Adam's; solver={solver!r} has none of them.")
        return solver if isinstance(solver, AbstractSolver) else LBFGS()
    found: dict[str, AbstractSolver] = {
        "auto": adam,
        "adam": adam,
        "coarse-to-fine": CoarseToFine(adam),
        "adam-lbfgs": Relay(replace(adam, schedule=Schedule(ramp_down=0.0)), LBFGS()),
    }
    if solver not in found:
        raise InputError(f"solver={solver!r} is unknown; use {', '.join(map(repr, SOLVERS))}, or a solver.")
    return found[solver]


def _style_rate(
    spaces: Sequence[AbstractSpace], options: SpaceOptions, steps: int, rate: float | None, given: Any
) -> dict[str, float]:
    """The style space's rate: higher alone, and in a run of few steps, which has to go as far in them."""
    base = style_base(spaces)
    if rate is not None or options.formulation != "paper":
        return {}
    if isinstance(given, Mapping) and (base.name in given or base.family in given):
        return {}
    usual = LONE_RATE if len(spaces) == 1 else DEFAULT_RATE
    short = (DEFAULT_STEPS / steps) ** 1.5 if 0 < steps < DEFAULT_STEPS else 1.0
    return {base.name: min(HIGHEST_RATE, usual * short)}


def _candidates(spaces: Sequence[AbstractSpace], named: Sequence[str]) -> tuple[str, ...]:
    """Spaces among which segments are shared out: the spatial ones, and the style space if it was named."""
    styles = [space.name for space in spaces if isinstance(space, AbstractStyleSpace)]
    spatial = [space.name for space in spaces if space.spatial]
    return tuple([name for name in styles if name in named or not spatial] + spatial)


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


def _encoder(given: Any, generator: AbstractGenerator) -> Any:
    """What was given, with encoders opened and put beside the generator.

    Raises:
        InputError: If it is no start, or an encoder for another generator.
        CheckpointError: If it is the path of a file that holds no encoder.
    """
    if isinstance(given, (Tensor, np.ndarray, Solution)) or (isinstance(given, str) and given in STARTS):
        return given
    named = isinstance(given, str) and (given in ENCODERS or bool(Path(given).suffix))
    if named or isinstance(given, (Path, AbstractEncoder)):
        return encoder_for(given, generator)
    raise InputError(
        f"encoder={given!r} is unknown; use {', '.join(map(repr, (*STARTS, *ENCODERS)))}, the file of an encoder, "
        "styles, or a solution."
    )


@torch.no_grad()
def _encoded(
    recipe: Recipe, encoder: AbstractEncoder, target: Tensor, regions: Regions
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """Styles `[B, L, D]` and values of further spaces as an encoder says them of targets."""
    found = encoder.encode(target, recipe.generator, regions)
    styles = found["W+"]["w"].to(target)
    return styles, warm_values(recipe.generator, recipe.spaces, styles, found)


def _picture_taus(tau: Tau | None, distance: Tensor | None, target: Tensor, usual: float) -> Tensor:
    """The threshold of each picture `[B]`; of its classes without one of their own."""
    named = tau.get("*") if isinstance(tau, Mapping) else tau
    value = usual if named is None else named
    taus = torch.full((len(target),), value, dtype=torch.float64, device=target.device)
    if named is None and distance is not None:
        taus[distance > FAR_FROM_DOMAIN] = FAR_TAU
    return taus


def _segmenter(segmenter: Any, metric: AbstractMetric) -> AbstractSegmenter:
    if isinstance(segmenter, AbstractSegmenter):
        return segmenter
    if not isinstance(segmenter, str):
        return LabelImage(segmenter)
    if segmenter == "auto":
        segmenter = "demo" if metric.name == "demo" else "felzenszwalb"
    if segmenter == "labels":
        raise InputError("segmenter='labels' needs labels: pass the label array, or the path of a label image.")
    if segmenter not in SEGMENTERS and Path(segmenter).suffix:
        return LabelImage(segmenter)
    return SEGMENTERS.get(segmenter)()


def _invertibility(
    given: Any, generator: AbstractGenerator, candidates: Sequence[str], metric: AbstractMetric
) -> str | AbstractInvertibility | GivenRegions | Regions:
    """What says where segments belong: "measured", or something that knows it beforehand."""
    # The last space takes what no other one is good enough for, whatever its own error.
    needed = candidates[:-1]
    if isinstance(given, PredictedInvertibility):
        given.check(generator, needed, metric.name)
        return given
    if isinstance(given, (Regions, GivenRegions, AbstractInvertibility)):
        return given
    if given == "auto":
        network = find_network(generator) if needed else None
        if network is not None and suits(load_invertibility(network).config, needed, metric.name):
            return PredictedInvertibility.for_generator(generator, needed, metric.name, network)
        return "measured"
    if given == "measured":
        return "measured"
    if given == "predicted":
        return PredictedInvertibility.for_generator(generator, needed, metric.name)
    if isinstance(given, (str, Path)) and Path(given).suffix == ".safetensors":
        return PredictedInvertibility.for_generator(generator, needed, metric.name, given)
    raise InputError(
        f"invertibility={given!r} is unknown; use 'measured', 'predicted', the .safetensors file of a network, "
        "GivenInvertibility, GivenRegions or Regions."
    )


def suits(config: InvertibilityConfig, spaces: Sequence[str], metric: str) -> bool:
    """Whether a network predicts the errors of some spaces in the values of a metric."""
    return set(spaces) <= set(config.spaces) and config.metric in ("", metric)


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
