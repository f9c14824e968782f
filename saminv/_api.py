"""The functions behind the door: names become objects here, then :func:`saminv.optim.solve` is called."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import CheckpointError, InputError
from ._version import __version__
from .demo.generator import load_demo_generator
from .editing import edit_solution
from .generators import GENERATORS, AbstractGenerator
from .generators.stylegan2 import stylegan2_from_arrays
from .images import Picture, fit, load_many
from .metrics import get_metric
from .metrics._base import AbstractMetric
from .optim import AbstractSolver, Adam, BestSoFar, Escalate, Objective, PlateauStop, Problem, solve
from .optim.objective import PAPER_WEIGHTS, PUBLISHED_WEIGHTS
from .optim.start import nearest_styles
from .regions import Regions
from .segment import SEGMENTERS, AbstractInvertibility, AbstractSegmenter, GivenRegions, LabelImage, Segments, allocate
from .segment import check_tau as _check_tau
from .solution import Solution
from .spaces import AbstractSpace, AbstractStyleSpace, resolve_spaces
from .spaces._base import SpaceOptions
from .weights import read_safetensors

DEFAULT_TAU = 0.3
FAR_TAU = 0.15
"""The default for pictures far from the domain: their W+ is too poor to give up likeness for it."""
DEFAULT_STEPS = 300
DEFAULT_RATE = 0.1
DEFAULT_FEATURE_RATE = 1.0
"""Rate of feature deltas, in units of their channels' standard deviations."""
FAR_FROM_DOMAIN = 2.1
"""Distance to the nearest sample, relative to that between samples, above which a picture counts as far."""


def load_generator(generator: str | Path | AbstractGenerator = "demo", device: str = "cpu") -> AbstractGenerator:
    """Open a generator.

    Args:
        generator: A registered name, a .safetensors file that saminv wrote, or a generator, which is passed through.
        device: "cpu", "cuda", "cuda:0" or "auto".

    Raises:
        InputError: For an unknown name; the message lists the known ones.
        CheckpointError: For a file that is damaged or holds something else.
    """
    if isinstance(generator, AbstractGenerator):
        return generator
    name = str(generator)
    if Path(name).suffix == ".safetensors":
        path = Path(name)
        if not path.is_file():
            raise CheckpointError(f"The generator file {path} does not exist.")
        return stylegan2_from_arrays(*read_safetensors(path.read_bytes(), str(path)), str(path)).to(_device(device))
    return _named_generator(name, str(_device(device)))


@functools.lru_cache(maxsize=8)
def _named_generator(name: str, device: str) -> AbstractGenerator:
    generator = GENERATORS.get(name)().to(device)
    generator.name = name
    return generator


def _open(generator: str | Path | AbstractGenerator, device: str) -> AbstractGenerator:
    """The generator on the device asked for; one that was passed in stays where it is."""
    if not isinstance(generator, AbstractGenerator):
        return load_generator(generator, device)
    place = generator.device if device == "auto" else _device(device)
    return generator if generator.device == place else copy.deepcopy(generator).to(place)


if "demo" not in GENERATORS:
    GENERATORS.add("demo", load_demo_generator)


def _device(name: str | torch.device) -> torch.device:
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"Unknown device {name!r}; use 'auto', 'cpu' or 'cuda'.") from error
    if device.type not in ("cpu", "cuda"):
        # The device "meta" would even wipe out the weights of a generator that was passed in.
        raise InputError(f"Unknown device {str(name)!r}; use 'auto', 'cpu' or 'cuda'.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda' was asked for, but torch sees no CUDA device here; use device='cpu' or 'auto'.")
    return device


@dataclass(frozen=True)
class _Job:
    """Everything that an inversion needs, as objects."""

    generator: AbstractGenerator
    target: Tensor
    crops: list[dict[str, Any]]
    names: list[str]
    spaces: tuple[AbstractSpace, ...]
    candidates: tuple[str, ...]
    metric: AbstractMetric
    options: SpaceOptions
    tau: float | None


def invert(
    img: Any,
    spaces: Sequence[str] | None = None,
    tau: float | None = None,
    *,
    generator: str | Path | AbstractGenerator = "demo",
    label: Tensor | int | None = None,
    segmenter: str | AbstractSegmenter | Any = "auto",
    invertibility: str | AbstractInvertibility | GivenRegions | Regions = "measured",
    metric: str | AbstractMetric = "auto",
    encoder: str | Tensor | Solution = "auto",
    steps: int = DEFAULT_STEPS,
    formulation: str = "paper",
    tap_point: str = "layer",
    skip: str = "blend",
    weights: Mapping[str, float] | None = None,
    rate: float = DEFAULT_RATE,
    rates: Mapping[str, float] | None = None,
    noise: str = "const",
    fit_mode: str = "auto",
    device: str = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Solution:
    """Invert pictures by spatially-adaptive multilayer inversion.

    Args:
        img: Path, PIL image, array or tensor, or a list of them; a batch `[B, 3, H, W]` is B pictures.
        spaces: Names such as "W+", "F4", "F6"; the generator's default where None. Segments are shared out among the
            style space (if named) and the feature spaces.
        tau: Largest mean perceptual error of a segment that stays in a more editable space, from 0 up. None is 0.3, or
            0.15 for a picture that is far from what the generator makes; ``stats["tau"]`` says which.
        generator: Name, file or generator.
        label: Class number or vector of a conditional generator.
        segmenter: "auto", a registered name, a segmenter, or a label image.
        invertibility: "measured" while inverting, or given: error maps, regions, or drawn regions.
        metric: Perceptual metric by name; "auto" is "demo" for the demo generator and "lpips-vgg" for all others.
        encoder: Where to start: "auto" or "nearest" (the nearest of random samples), "mean" or "none" (the mean w),
            styles `[L, D]` or `[B, L, D]`, or another solution.
        steps: Steps in all; 0 returns the start.
        formulation: "paper" or "published" form of masks and regularisers.
        tap_point: "layer" or "block", where feature deltas act.
        skip: "blend" or "published", what an edit freezes.
        weights: Weights of the objective's parts to change, by name.
        rate, rates: Adam's learning rate, and that of single spaces by name or family letter; 1.0 for "F" unless said,
            or ``rate`` too where the formulation is "published", whose deltas are not whitened.
        noise: Noise mode of the generator; "const" keeps the objective deterministic.
        fit_mode: "auto", "crop" or "letterbox", how pictures of another shape are fitted.
        device: "auto", "cpu" or "cuda".
        seed: Of everything random.
        progress: Show a bar.

    Returns:
        One solution over all pictures.

    Raises:
        InputError: For anything unusable, with what is allowed.
        ImageError: For a picture that cannot be read.

    Reference:
        Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357).
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 up, got {seed!r}.")
    options = SpaceOptions(formulation, tap_point, skip, formulation == "paper", label)  # type: ignore[arg-type]
    opened = _open(generator, device)
    with torch.random.fork_rng(devices=[opened.device] if opened.device.type == "cuda" else []):
        torch.manual_seed(seed)
        job = _prepare(img, spaces, tau, opened, metric, options, fit_mode)
        styles, warm, distance = _start(encoder, job, seed)
        _warn_of_foreign(distance, job.names)
        taus = _taus(job, distance)
        segments = _segments(segmenter, job)
        regions, measured = _regions(invertibility, segments, job, taus)
        chosen = dict(PAPER_WEIGHTS if formulation == "paper" else PUBLISHED_WEIGHTS) | dict(weights or {})
        problem = Problem(
            job.generator,
            job.target,
            styles,
            job.spaces,
            regions,
            Objective(job.metric, chosen, clamp=formulation == "published"),
            noise=noise,
            warm=warm,
        )
        _check_parts(weights, problem)
        solver = _solver(job, segments if measured else None, taus, rate, rates or {})
        solution = solve(problem, solver, max_steps=steps, progress=progress)
    given = {"steps": steps, "seed": seed, "noise": noise, "weights": chosen, "invertibility": _name_of(invertibility)}
    return _finish(solution, job, segments, given, {"tau": taus, "domain_distance": distance})


def edit(solution: Solution, direction: Any, strength: float | Sequence[float] = 1.0) -> Tensor:
    """Render a solution with an edit; the same as :meth:`Solution.edit`."""
    return edit_solution(solution, direction, strength)


def _prepare(
    img: Any,
    spaces: Sequence[str] | None,
    tau: float | None,
    opened: AbstractGenerator,
    metric: str | AbstractMetric,
    options: SpaceOptions,
    fit_mode: str,
) -> _Job:
    tau = None if tau is None else _check_tau(tau)
    _check_label(options.label, opened)
    named = opened.default_spaces if spaces is None else spaces
    resolved = resolve_spaces(named, opened, options)
    pictures: list[Picture] = load_many(img)
    fitted = [fit(picture, opened.image_size, fit_mode) for picture in pictures]
    if isinstance(metric, str):
        suited = "demo" if opened.name == "demo" else "lpips-vgg"
        metric = get_metric(suited if metric == "auto" else metric)
    if not isinstance(metric, AbstractMetric):
        raise InputError(f"metric must be a name or a metric, not {type(metric).__name__}.")
    if metric.higher_is_better or not metric.spatial:
        raise InputError(
            f"metric={metric.name!r} cannot be minimised segment by segment; use 'demo', 'lpips-vgg' or 'mse'."
        )
    return _Job(
        generator=opened,
        target=torch.cat([tensor for tensor, _ in fitted]).to(opened.device, opened.dtype),
        crops=[crop.to_dict() for _, crop in fitted],
        names=[picture.name for picture in pictures],
        spaces=resolved,
        candidates=_candidates(resolved, named),
        metric=metric.to(opened.device, opened.dtype),
        options=options,
        tau=tau,
    )


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


def _check_parts(weights: Mapping[str, float] | None, problem: Problem) -> None:
    """Raise for weights of parts that the objective does not have."""
    known = [*PAPER_WEIGHTS, *(name for name in problem.penalties(problem.start()) if name not in PAPER_WEIGHTS)]
    unknown = [name for name in weights or {} if name not in known]
    if unknown:
        raise InputError(f"The objective has no part {', '.join(map(str, unknown))}. It has: {', '.join(known)}.")


def _candidates(spaces: Sequence[AbstractSpace], named: Sequence[str]) -> tuple[str, ...]:
    """Spaces among which segments are shared out: the spatial ones, and the style space if it was named."""
    styles = [space.name for space in spaces if isinstance(space, AbstractStyleSpace)]
    spatial = [space.name for space in spaces if space.spatial]
    return tuple([name for name in styles if name in named or not spatial] + spatial)


def _start(encoder: Any, job: _Job, seed: int) -> tuple[Tensor, dict | None, Tensor | None]:
    """Start styles `[B, L, D]`, warm values of further spaces, and the distance to the nearest sample `[B]`."""
    batch, generator = job.target.shape[0], job.generator
    if isinstance(encoder, Solution):
        if len(encoder) != batch:
            raise InputError(f"The solution to start from has {len(encoder)} images, but there are {batch} pictures.")
        if encoder.provenance.get("fingerprint") != generator.fingerprint:
            raise InputError("The solution to start from belongs to another generator; start from 'auto' instead.")
        spaces = resolve_spaces(list(encoder.latents), generator, SpaceOptions(label=job.options.label))
        base = next(space for space in spaces if isinstance(space, AbstractStyleSpace))
        styles, distance = base.styles(generator, encoder.latents[base.name]), encoder.stats.get("domain_distance")
        return styles, encoder.latents, None if distance is None else distance.to(job.target)
    if isinstance(encoder, (Tensor, np.ndarray)):
        encoder, shape = torch.as_tensor(encoder), (generator.num_styles, generator.style_dim)
        if tuple(encoder.shape) not in {shape, (1, *shape), (batch, *shape)}:
            raise InputError(f"Start styles must be {list(shape)} or {[batch, *shape]}, got {list(encoder.shape)}.")
        if not bool(torch.isfinite(encoder).all()):
            raise InputError("Start styles must be finite numbers.")
        styles = encoder.detach().to(job.target).reshape(-1, *shape)
        return styles.expand(batch, -1, -1), None, None
    if encoder in ("mean", "none"):
        mean = generator.statistics(job.options.label).mean_w.to(job.target)
        return mean.expand(batch, generator.num_styles, -1), None, None
    if encoder in ("auto", "nearest"):
        styles, distance = nearest_styles(generator, job.target, job.metric, seed, job.options.label)
        return styles, None, distance
    raise InputError(f"encoder={encoder!r} is unknown; use 'auto', 'nearest', 'mean', styles, or a solution.")


def _warn_of_foreign(distance: Tensor | None, names: Sequence[str]) -> None:
    if distance is None:
        return
    for name, value in zip(names, distance.tolist()):
        if value > FAR_FROM_DOMAIN:
            warnings.warn(
                f"{name} looks far from what the generator makes: its nearest sample is {value:.1f} times as far away "
                f"as samples are from each other (more than {FAR_FROM_DOMAIN:g} is unusual). Expect later layers to be "
                "used for most of it, and weak edits.",
                UserWarning,
                stacklevel=3,
            )


def _taus(job: _Job, distance: Tensor | None) -> Tensor:
    """The threshold of each picture `[B]`."""
    usual = DEFAULT_TAU if job.tau is None else job.tau
    taus = torch.full((len(job.names),), usual, dtype=torch.float64, device=job.target.device)
    if job.tau is None and distance is not None:
        taus[distance > FAR_FROM_DOMAIN] = FAR_TAU
    return taus


def _segments(segmenter: Any, job: _Job) -> Segments:
    if isinstance(segmenter, str):
        chosen = segmenter
        if segmenter == "auto":
            chosen = "demo" if job.metric.name == "demo" else "felzenszwalb"
        if chosen == "labels":
            raise InputError("segmenter='labels' needs labels: pass the label array, or the path of a label image.")
        if chosen in SEGMENTERS:
            segmenter = SEGMENTERS.get(chosen)()
        elif Path(chosen).suffix:
            segmenter = LabelImage(chosen)
        else:
            SEGMENTERS.get(chosen)
    elif not isinstance(segmenter, AbstractSegmenter):
        segmenter = LabelImage(segmenter)
    return segmenter(job.target)


def _regions(invertibility: Any, segments: Segments, job: _Job, taus: Tensor) -> tuple[Regions, bool]:
    """Regions to begin with, and whether they are to be measured on the way."""
    height, width = job.target.shape[-2:]
    uniform = Regions.uniform(
        job.target.shape[0],
        (height, width),
        job.candidates,
        job.candidates[0],
        formulation=job.options.formulation,
        device=job.target.device,
    )
    if isinstance(invertibility, Regions):
        return replace(invertibility, formulation=job.options.formulation), False
    if isinstance(invertibility, GivenRegions):
        return invertibility(job.target, formulation=job.options.formulation), False
    if isinstance(invertibility, AbstractInvertibility):
        error = invertibility(job.target)
        return allocate(error, segments, job.candidates, taus, formulation=job.options.formulation), False
    if invertibility == "measured":
        return uniform, len(job.candidates) > 1
    raise InputError(
        f"invertibility={invertibility!r} is unknown; use 'measured', GivenInvertibility, GivenRegions or Regions."
    )


def _solver(
    job: _Job, segments: Segments | None, taus: Tensor, rate: float, rates: Mapping[str, float]
) -> AbstractSolver:
    names = [space.name for space in job.spaces]
    if not isinstance(rates, Mapping) or not set(rates) <= {*names, *(name[0] for name in names)}:
        raise InputError(f"rates must map spaces ({', '.join(names)}) or their first letters to rates, got {rates!r}.")
    usual = {"F": DEFAULT_FEATURE_RATE} if job.options.whiten_features else {}
    solver: AbstractSolver = BestSoFar(Adam(rate=rate, rates={**usual, **rates}))
    if segments is None:
        return PlateauStop(solver)
    return Escalate(solver, job.metric, segments.ids.to(job.target.device), taus)


def _name_of(thing: Any) -> str:
    return thing if isinstance(thing, str) else type(thing).__name__


@torch.no_grad()
def _finish(
    solution: Solution, job: _Job, segments: Segments, given: dict, found: Mapping[str, Tensor | None]
) -> Solution:
    """Add metrics and provenance."""
    stats = dict(solution.stats)
    stats["mse"] = (solution.image - solution.target).square().mean(dim=(1, 2, 3))
    stats["ssim"] = get_metric("ssim").compare(solution.image, solution.target)
    stats[job.metric.name] = job.metric.compare(solution.image, solution.target)
    stats |= {name: value for name, value in found.items() if value is not None}
    for name in solution.regions.spaces:
        stats[f"share/{name}"] = solution.regions.share(name)
    provenance = {
        "saminv": __version__,
        "generator": job.generator.name,
        "fingerprint": job.generator.fingerprint,
        "spaces": list(solution.latents),
        **job.options.to_dict(),
        "tau": job.tau,
        "metric": job.metric.name,
        "names": job.names,
        "crops": job.crops,
        "segment_names": {str(key): value for key, value in segments.names.items()},
        **given,
    }
    return replace(solution, stats=stats, provenance=provenance, segments=segments.ids)
