"""The functions behind the door: names become objects, then :func:`saminv.optim.solve` is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ._arguments import DEFAULT_STEPS, make_recipe
from ._errors import InputError
from ._open import load_generator
from ._search import TAUS, Sweep, search_job, sweep_job
from .editing import edit_solution
from .encoders import AbstractEncoder
from .generators import AbstractGenerator
from .images import load_many
from .metrics._base import AbstractMetric
from .optim import AbstractSolver
from .regions import Regions
from .segment import AbstractInvertibility, AbstractSegmenter, GivenRegions
from .segment.allocate import check_tau
from .solution import Solution

__all__ = ["edit", "invert", "load_generator", "sweep"]


def invert(
    img: Any,
    spaces: Sequence[str] | None = None,
    tau: float | Mapping[str, float] | str | None = None,
    *,
    preset: str | None = None,
    target_psnr: float | None = None,
    target_lpips: float | None = None,
    generator: str | Path | AbstractGenerator = "demo",
    label: Tensor | int | None = None,
    segmenter: str | AbstractSegmenter | Any = "auto",
    invertibility: str | AbstractInvertibility | GivenRegions | Regions = "auto",
    metric: str | AbstractMetric = "auto",
    encoder: str | Path | AbstractEncoder | Tensor | Solution = "auto",
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
    progress: bool = False,
) -> Solution:
    """Invert pictures by spatially-adaptive multilayer inversion.

    Args:
        img: Path, PIL image, array or tensor, or a list of them; a batch `[B, 3, H, W]` is B pictures.
        spaces: Names such as "W+", "F4", "F6"; the generator's default where None. Segments are shared out among the
            style space (if named) and the feature spaces.
        tau: Largest mean perceptual error of a segment that stays in a more editable space, from 0 up; or one for each
            class by name, such as ``{"car": 0.4, "*": 0.25}``. None is 0.2 where errors are predicted, 0.3 where they
            are measured, or 0.15 for a picture that is far from what the generator makes; ``stats["tau"]`` says which.
            "auto" is the most editable allocation that reaches the target.
        preset: A published way to invert, such as "pti" (in any case): its spaces, stages and priors. See
            :data:`saminv.PRESETS`.
        target_psnr, target_lpips: What ``tau="auto"`` has to reach: PSNR in dB, or the perceptual metric, whichever it
            is; exactly one of them.
        generator: Name, file or generator.
        label: Class number or vector of a conditional generator.
        segmenter: "auto", a registered name, a segmenter, or a label image.
        invertibility: "measured" while inverting, "predicted" by a network that was trained for the generator, or
            given: a network, error maps, regions, or drawn regions. "auto" is "predicted" where there is a network,
            else "measured".
        metric: Perceptual metric by name; "auto" is "demo" for the demo generator and "lpips-vgg" for all others.
        encoder: Where to start: "nearest" (the nearest of random samples), "mean" or "none" (the mean w), "auto" (three
            tenths of the way from the mean to the nearest sample), an encoder by its name, its file or as it is, styles
            `[L, D]` or `[B, L, D]`, or another solution.
        steps: Steps in all; 0 returns the start.
        formulation: "paper" or "published" form of masks and regularisers.
        tap_point: "layer" or "block", where feature deltas act.
        skip: "blend" or "published", what an edit freezes.
        weights: Weights of the objective's parts to change, by name.
        losses: Further metrics to minimise, by names that ``weights`` may use too (0.1 unless said); "perceptual" takes
            the place of ``metric`` in the loss, and leaves it what tau refers to.
        solver: "adam" (as "auto" is), "coarse-to-fine", "lbfgs", "adam-lbfgs", or a solver. What keeps the best iterate
            and measures invertibility is put around it.
        rate, rates: Adam's learning rate, and that of single spaces by name or family letter. None is 0.1 (0.2
            for a style space without another beside it), and up to 0.3 for the style space in runs of fewer than 300
            steps. "F" has 1.0 unless said, or ``rate`` too where the formulation is "published", whose deltas are not
            whitened, and "G" 3e-4.
        frozen: Spaces that stay where they start, such as the styles while weights move.
        stop_at: Sizes of parts of the loss at which a picture is done, such as ``{"perceptual": 0.06}``.
        noise: Noise mode of the generator; "const" keeps the objective deterministic.
        precision: Of the features: "fp32", "tf32" (convolutions of a GPU round their factors), "fp16" or "bf16", whose
            last tenth of the steps is "tf32". "auto" is "fp16" on a GPU if the generator can, and "fp32" on the CPU.
        graph: "auto" replays the steps as one CUDA graph on a GPU; "off" launches them one by one; "on" takes the steps
            in the way of a graph everywhere.
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
    settings: dict[str, Any] = {
        "spaces": spaces,
        "tau": tau,
        "preset": preset,
        "target_psnr": target_psnr,
        "target_lpips": target_lpips,
        "generator": generator,
        "label": label,
        "segmenter": segmenter,
        "invertibility": invertibility,
        "metric": metric,
        "encoder": encoder,
        "steps": steps,
        "formulation": formulation,
        "tap_point": tap_point,
        "skip": skip,
        "weights": weights,
        "losses": losses,
        "solver": solver,
        "rate": rate,
        "rates": rates,
        "frozen": frozen,
        "stop_at": stop_at,
        "noise": noise,
        "precision": precision,
        "graph": graph,
        "fit_mode": fit_mode,
        "device": device,
        "seed": seed,
    }
    recipe = make_recipe(**settings)
    pictures = load_many(img)
    with recipe.seeded():
        job = recipe.stages[0].prepare(pictures)
        recipe.warn_of_inert()
        job.warn_of_foreign()
        if recipe.target is not None:
            return search_job(recipe, job, progress)
        return recipe.follow(pictures, job, progress)


def sweep(
    img: Any,
    taus: Sequence[float] = TAUS,
    spaces: Sequence[str] | None = None,
    *,
    progress: bool = False,
    **settings: Any,
) -> Sweep:
    """Invert pictures at each of several thresholds, for the price of a few inversions.

    Thresholds that give a picture the same allocation share one solve, and each allocation starts from the one before.

    Args:
        img: As for :func:`invert`.
        taus: From 0 up, at least one, in any order; those of the SAM report's curves if not given.
        spaces: As for :func:`invert`.
        progress: Show a bar.
        settings: As for :func:`invert`, without tau, its targets and presets.

    Returns:
        The solutions by threshold, with :meth:`Sweep.curve`.

    Raises:
        InputError: For anything unusable, with what is allowed.
    """
    unwanted = {"tau", "target_psnr", "target_lpips", "preset"} & set(settings)
    if unwanted:
        raise InputError(f"A sweep takes taus, not {', '.join(sorted(unwanted))}.")
    if isinstance(taus, (str, int, float)) or not taus:
        raise InputError(f"taus must be a list of numbers, got {taus!r}.")
    checked = sorted({check_tau(tau) for tau in taus})
    recipe = make_recipe(spaces, **settings)
    pictures = load_many(img)
    with recipe.seeded():
        job = recipe.prepare(pictures)
        recipe.warn_of_inert()
        job.warn_of_foreign()
        return sweep_job(recipe, job, checked, progress)


def edit(solution: Solution, direction: Any, strength: float | Sequence[float] = 1.0, **how: Any) -> Tensor:
    """Render a solution with an edit, or several at once; the same as :meth:`Solution.edit`."""
    return edit_solution(solution, direction, strength, **how)
