"""What the arguments of :func:`saminv.invert` say, as a :class:`Recipe`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import InputError, WeightsError
from ._open import open_generator
from ._presets import PRESETS, Preset
from ._recipe import Recipe
from ._target import make_target
from .encoders import ENCODERS, AbstractEncoder, encoder_for
from .generators import AbstractGenerator
from .metrics import get_metric
from .metrics._base import AbstractMetric
from .optim import (
    LBFGS,
    AbstractSolver,
    Adam,
    CoarseToFine,
    Relay,
    Schedule,
)
from .optim.objective import PAPER_WEIGHTS, PUBLISHED_WEIGHTS
from .optim.precision import find_precision
from .optim.slots import check_graph
from .optim.solve import check_steps
from .regions import Regions
from .segment import (
    SEGMENTERS,
    AbstractInvertibility,
    AbstractSegmenter,
    GivenRegions,
    InvertibilityConfig,
    LabelImage,
    PredictedInvertibility,
    find_network,
    load_invertibility,
)
from .segment.allocate import check_tau
from .solution import Solution
from .spaces import AbstractSpace, AbstractStyleSpace, resolve_spaces
from .spaces._base import SpaceOptions, style_base

FURTHER_WEIGHT = 0.1
"""Weight of a further loss, as of identity and parsing in the Feature-Style paper (Eq. 8)."""
DEFAULT_STEPS = 300
DEFAULT_RATE = 0.1
LONE_RATE = 0.2
"""The default of a style space that has no other space beside it."""
HIGHEST_RATE = 0.3
"""To which the rate of the style space rises in runs of fewer steps than usual. From what an encoder says it does not
rise: such a run has not as far to go, and some leave a good start."""
SOLVERS = ("auto", "adam", "coarse-to-fine", "lbfgs", "adam-lbfgs")
STARTS = ("auto", "nearest", "mean", "none")
"""Starts without an encoder, by name."""
DEFAULT_FEATURE_RATE = 1.0
"""Rate of feature deltas, in units of their channels' standard deviations."""
DEFAULT_WEIGHT_RATE = 3e-4
"""Of the weights of a generator, as in Pivotal Tuning."""


def make_recipe(
    spaces: Sequence[str] | None = None, tau: Any = None, *, preset: str | None = None, **settings: Any
) -> Recipe:
    """The recipe for arguments of :func:`saminv.invert`, with all stages of a preset.

    Raises:
        InputError: For anything unusable, with what is allowed.
    """
    if preset is None:
        return _single(spaces, tau, **settings)
    chosen = PRESETS.get(preset.lower() if isinstance(preset, str) else preset)
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
        stages.append(replace(single, preset=chosen.name))
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
    start = _encoder(encoder, opened)
    weighted = _weights(formulation, losses or {}, weights or {})
    _check_domain(weighted, start)
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
        encoder=start,
        weights=weighted,
        losses={name: get_metric(loss).to(opened.device, opened.dtype) for name, loss in (losses or {}).items()},
        descent=_descent(solver, rate, rates, options, resolved, steps, near=isinstance(start, AbstractEncoder)),
        frozen=_frozen(frozen, resolved),
        stop_at=_stop_at(stop_at or {}),
        noise=noise,
        fit_mode=fit_mode,
        steps=steps,
        seed=int(seed),
        precision=find_precision(precision, opened),
        graph=check_graph(graph),
        domain=start if isinstance(start, AbstractEncoder) else None,
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


def _check_domain(weights: Mapping[str, float], encoder: Any) -> None:
    """Raise ``InputError`` for a weight of the part that needs an encoder where there is none."""
    if weights.get("domain") and not isinstance(encoder, AbstractEncoder):
        given = repr(encoder) if isinstance(encoder, str) else type(encoder).__name__
        raise InputError(
            "The part 'domain' (of preset='idinvert') holds styles to what an encoder says of their picture, and "
            f"encoder={given} is none. Pass one that was trained for this generator: "
            f"{', '.join([*map(repr, ENCODERS), 'its file'])}, or the encoder itself."
        )


def metric_name(metric: str, generator: AbstractGenerator) -> str:
    """The metric that a name stands for: "auto" is the one that suits the generator."""
    suited = "demo" if generator.name == "demo" else "lpips-vgg"
    return suited if metric == "auto" else metric


def _suited_metric(metric: str | AbstractMetric, generator: AbstractGenerator) -> AbstractMetric:
    if isinstance(metric, str):
        try:
            metric = get_metric(metric_name(metric, generator))
        except WeightsError as error:
            if metric != "auto":
                raise
            raise WeightsError(f"{error} Or do without it: metric='mse' compares colours alone.") from error
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
    near: bool,
) -> AbstractSolver:
    """The solver that a name stands for, with the rates that were given or else suit the spaces and the steps.

    ``near`` says whether the run starts from what an encoder says.
    """
    usual = {"F": DEFAULT_FEATURE_RATE} if options.whiten_features else {}
    usual["G"] = DEFAULT_WEIGHT_RATE
    usual |= _style_rate(spaces, options, DEFAULT_STEPS if near else steps, rate, rates or {})
    chosen = {**usual, **_checked_rates(rates or {}, spaces)}
    adam = Adam(DEFAULT_RATE if rate is None else rate, chosen, principal=near)
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
