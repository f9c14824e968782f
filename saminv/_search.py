"""Several thresholds for the same pictures: the curve over τ, and the τ that reaches a target.

Both look at the errors of segments first. These say which allocations there are, so that masks that repeat are solved
once; and each allocation starts from the solution of a more editable one, whose segments only have to be refined.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ._errors import InputError, Status
from ._recipe import Job, Recipe, known_errors
from ._target import Target
from ._types import Latents
from .optim import Escalate, Problem
from .optim.carry import carry_over
from .optim.escalate import EscalateState
from .segment import AbstractInvertibility
from .segment.allocate import SegmentErrors
from .solution import Solution

TAUS = (*(round(0.1 + 0.025 * k, 3) for k in range(13)), 1.0)
"""The thresholds of the SAM report's curves."""
SWEEP_SHARE = 2.7
"""Steps of a sweep after its first solves, as a multiple of theirs."""
SEARCH_SHARE = 1.9
"""The same of a search."""
SECOND_LOOK = 1.5
"""Steps of a search's second look at the allocation before its result, as a multiple of those of its other solves."""
LEAST_STEPS = 10


@dataclass(frozen=True, eq=False)
class Sweep:
    """Solutions of the same pictures over a range of thresholds.

    Attributes:
        taus: Rising.
        solutions: One over all pictures for each of ``taus``.
        work: Steps of single images that were taken in all.
    """

    taus: tuple[float, ...]
    solutions: tuple[Solution, ...]
    work: int

    def curve(self) -> list[dict[str, Any]]:
        """For each τ its "tau", and as lists over the pictures "psnr", the metric by its name, "ssim" and "shares"."""
        rows = []
        for tau, solution in zip(self.taus, self.solutions):
            kept = ["psnr", "ssim", str(solution.provenance["metric"])]
            shares = {name: solution.stats[f"share/{name}"].tolist() for name in solution.regions.spaces}
            rows.append({"tau": tau, **{key: solution.stats[key].tolist() for key in kept}, "shares": shares})
        return rows


def sweep_job(recipe: Recipe, job: Job, taus: Sequence[float], progress: bool = False) -> Sweep:
    """Solve a job at each of ``taus``."""
    errors, work = segment_errors(recipe, job, progress)
    levels = {tau: errors.levels(tau) for tau in sorted(taus, reverse=True)}
    rows = range(len(job.names))
    # The allocations of each picture in the order of falling tau, each once.
    chains: list[list[Tensor]] = [[] for _ in rows]
    place: dict[tuple[int, float], int] = {}
    for tau, all_levels in levels.items():
        for row in rows:
            if not chains[row] or not torch.equal(chains[row][-1], all_levels[row]):
                chains[row].append(all_levels[row])
            place[row, tau] = len(chains[row]) - 1
    walk = Walk(recipe, job, errors)
    warm_steps = _shared_steps(recipe.steps, SWEEP_SHARE * len(chains), sum(map(len, chains)) - len(chains))
    for index in tqdm(range(max(map(len, chains))), disable=not progress, unit="allocation", desc="sweep"):
        there = [row for row in rows if index < len(chains[row])]
        before = None if index == 0 else [walk.solved[row, index - 1] for row in there]
        steps = recipe.steps if index == 0 else warm_steps
        walk.solve(there, index, torch.stack([chains[row][index] for row in there]), before, steps)
    solutions = tuple(
        _labelled(Solution.join([walk.solved[row, place[row, tau]] for row in rows]), tau) for tau in sorted(taus)
    )
    return Sweep(tuple(sorted(taus)), solutions, work + walk.work)


def _shared_steps(steps: int, share: float, solves: int) -> int:
    """Steps of each of some ``solves`` that may take ``share`` times as many as a full one together."""
    return min(steps, max(LEAST_STEPS, round(share * steps / max(solves, 1))))


def _labelled(solution: Solution, tau: float) -> Solution:
    taus = torch.full_like(solution.stats["tau"], tau)
    return replace(solution, stats={**solution.stats, "tau": taus}, provenance={**solution.provenance, "tau": tau})


def segment_errors(recipe: Recipe, job: Job, progress: bool = False) -> tuple[SegmentErrors, int]:
    """Mean error of each segment in each space, predicted or given as maps or measured, and the steps that it took.

    Raises:
        InputError: If the recipe has regions instead of errors.
    """
    given, far = recipe.invertibility, job.found.get("measured", torch.zeros(len(job.names))).bool()
    if isinstance(given, AbstractInvertibility):
        errors, work = known_errors(recipe, job.segments, job.problem.target), 0
        if bool(far.any()):
            rows = torch.nonzero(far)[:, 0]
            measured, work = _measure_errors(recipe, job.select(rows), progress)
            errors.means[:, rows, : measured.means.shape[2]] = measured.means
        return errors, work
    if not isinstance(given, str):
        raise InputError("Given regions are fixed, so there is no tau to choose; give errors, or leave them to saminv.")
    if len(recipe.candidates) == 1:
        zeros = {recipe.candidates[0]: torch.zeros_like(job.problem.target[:, :1])}
        return SegmentErrors.of(zeros, job.segments, recipe.candidates), 0
    return _measure_errors(recipe, job, progress)


def _measure_errors(recipe: Recipe, job: Job, progress: bool) -> tuple[SegmentErrors, int]:
    """Errors by one inversion in which all segments climb to the last space, and its steps."""
    found: list[Tensor] = []

    def watch(step: int, state: Any, evaluation: Any) -> None:
        assert isinstance(state, EscalateState)
        found[:] = [state.table, state.level]

    zeros = torch.zeros(len(job.names), dtype=torch.float64)
    solver = recipe.solver(job.segments, zeros, torch.ones_like(zeros).bool())
    assert isinstance(solver, Escalate)
    regions = job.problem.regions
    problem = replace(job.problem, regions=regions.with_labels(torch.zeros_like(regions.labels)), _touched=None)
    solution = recipe.solve(problem, solver, max_steps=max(recipe.steps, 1), callback=watch, progress=progress)
    _raise_if_interrupted(solution)
    errors = SegmentErrors(found[0].permute(2, 0, 1).contiguous(), job.segments, recipe.candidates)
    return errors, int(solution.stats["steps"].sum())


def _raise_if_interrupted(solution: Solution) -> None:
    if Status.INTERRUPTED in solution.statuses:
        raise KeyboardInterrupt


class Walk:
    """Solves allocations of the pictures of a job, and remembers them.

    Attributes:
        solved: Solutions of one image by its row and whatever the caller calls the allocation.
        work: Steps of single images so far.
    """

    def __init__(self, recipe: Recipe, job: Job, errors: SegmentErrors) -> None:
        self.recipe, self.job, self.errors = recipe, job, errors
        self.solved: dict[tuple[int, Any], Solution] = {}
        self.work = 0

    def solve(
        self, rows: Sequence[int], name: Any, levels: Tensor, warm: Sequence[Solution] | None, steps: int
    ) -> Solution:
        """Solve one allocation ``levels`` `[N, S]` for each of the pictures ``rows``, from where ``warm`` ended."""
        chosen = torch.tensor(rows, device=levels.device)
        job = self.job.select(chosen)
        regions = self.errors.select(chosen).regions(levels, self.recipe.options.formulation)
        problem = replace(job.problem, regions=regions, _touched=None)
        start = None if warm is None else self._start(problem, Solution.join(warm))
        solver = self.recipe.solver(job.segments, torch.zeros(len(rows)), torch.zeros(len(rows)).bool())
        solution = self.recipe.solve(problem, solver, start, max_steps=steps)
        _raise_if_interrupted(solution)
        self.work += int(solution.stats["steps"].sum())
        solution = job.finish(solution)
        for index, row in enumerate(rows):
            self.solved[row, name] = solution[index]
        return solution

    def _start(self, problem: Problem, warm: Solution) -> Latents:
        """Latents that make of the problem's regions about what a solution made of others."""
        return carry_over(problem.generator, problem.spaces, warm.latents, warm.regions, problem.regions, problem.noise)


def search_job(recipe: Recipe, job: Job, progress: bool = False) -> Solution:
    """The most editable allocation of each picture that reaches the recipe's target, by bisection over its allocations.

    Returns:
        One solution over all pictures. ``stats["tau"]`` is the threshold that gives the allocation,
        ``stats["target_met"]`` is 1 where it reaches the target; where none does, the least editable one is returned.
        ``stats["allocations"]`` says how many there are.
    """
    assert recipe.target is not None
    errors, _ = segment_errors(recipe, job, progress)
    search = _Search(recipe, job, errors, recipe.target)
    with tqdm(total=search.rounds, disable=not progress, unit="solve", desc=f"search for {recipe.target.text}") as bar:
        while search.advance():
            bar.update()
    return search.result()


class _Search:
    """Bisection of all pictures at once.

    The most editable allocation is solved first and fully; the others start from the nearest solved one on their more
    editable side, which missed the target. The allocation before the result missed it after few steps, so it gets some
    more in the end, and is the result if these are enough.
    """

    def __init__(self, recipe: Recipe, job: Job, errors: SegmentErrors, target: Target) -> None:
        self.errors, self.target, self.walk = errors, target, Walk(recipe, job, errors)
        self.taus = [errors.steps(row) for row in range(len(job.names))]
        longest = max(map(len, self.taus))
        bisections = math.ceil(math.log2(longest)) if longest > 1 else 0
        self.rounds = bisections + 2 if bisections else 1
        share = SEARCH_SHARE / (bisections + SECOND_LOOK)
        self.steps, self.more = (_shared_steps(recipe.steps, times * share, 1) for times in (1.0, SECOND_LOOK))
        # The last allocation known to miss the target, and the first known to meet it.
        self.misses = [-1] * len(self.taus)
        self.meets: list[int | None] = [None] * len(self.taus)
        self.looked = False

    def advance(self) -> bool:
        """Solve one allocation of each picture that is not decided; returns whether there was one."""
        tries = {row: index for row in range(len(self.taus)) if (index := self._next(row)) is not None}
        if not tries:
            return self._look_again()
        # All pictures begin together, so the first round is the only one without neighbours.
        first = all(index == 0 for index in tries.values())
        warm = None if first else [self.walk.solved[row, self.misses[row]] for row in tries]
        rows, steps = list(tries), self.walk.recipe.steps if first else self.steps
        taus = torch.tensor([self.taus[row][index] for row, index in tries.items()], dtype=torch.float64)
        levels = self.errors.select(torch.tensor(rows)).levels(taus)
        solution = self.walk.solve(rows, None, levels, warm, steps)
        for place, (row, index) in enumerate(tries.items()):
            self.walk.solved[row, index] = solution[place]
            if self.target.met(solution[place].stats):
                self.meets[row] = index
            else:
                self.misses[row] = index
        return True

    def _look_again(self) -> bool:
        """Go on with the allocation before each result, if it was not solved fully; returns whether there was one."""
        rows = [row for row, (low, high) in enumerate(zip(self.misses, self.meets)) if high is not None and low > 0]
        if self.looked or not rows:
            return False
        self.looked = True
        before = [self.walk.solved[row, self.misses[row]] for row in rows]
        taus = torch.tensor([self.taus[row][self.misses[row]] for row in rows], dtype=torch.float64)
        levels = self.errors.select(torch.tensor(rows)).levels(taus)
        solution = self.walk.solve(rows, None, levels, before, self.more)
        for place, row in enumerate(rows):
            if self.target.met(solution[place].stats):
                self.meets[row] = self.misses[row]
                self.walk.solved[row, self.misses[row]] = solution[place]
        return True

    def _next(self, row: int) -> int | None:
        low, high, count = self.misses[row], self.meets[row], len(self.taus[row])
        if low < 0:
            return 0 if high is None else None
        end = count if high is None else high
        return None if end - low <= 1 else (low + end) // 2

    def result(self) -> Solution:
        """The allocations that were found, with their numbers."""
        found, missed = [], []
        for row, (low, high) in enumerate(zip(self.misses, self.meets)):
            best = low if high is None else high
            solution = self.walk.solved[row, best]
            numbers = {"tau": self.taus[row][best], "target_met": high is not None, "allocations": len(self.taus[row])}
            extra = {key: torch.full_like(solution.stats["psnr"], float(value)) for key, value in numbers.items()}
            found.append(replace(solution, stats={**solution.stats, **extra}))
            if high is None:
                missed.append(f"{self.walk.job.names[row]} ({float(solution.stats[self.target.stat]):.4g})")
        if missed:
            warnings.warn(
                f"No allocation reaches {self.target.text} for {', '.join(missed)}: the least editable one is "
                "returned. Allow later layers or more steps.",
                UserWarning,
                stacklevel=4,
            )
        return Solution.join(found)
