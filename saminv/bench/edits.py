"""What edits make of a run's solutions: columns beside those of reconstruction.

Values are kept beside the run, picture by picture, so an interrupted measurement goes on. How to add a measure: an
entry of :data:`EDITS` and a function of :data:`_MEASURES`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from .._api import invert
from .._errors import InputError, RunError
from .._files import atomic_write
from ..demo import sample_scenes
from ..demo.edits import WELL_READ, SceneEdits
from ..editing import editing_consistency, latent_distance
from ..editing.editability import editability, principal_directions
from ..generators import AbstractGenerator
from ..runs import read_manifest
from ..solution import Solution
from .rows import HIGHER, LOWER, Each

HELD_OUT = 50_000
"""Seed of the first scene of the demo world; no training draws scenes from there on."""
SCENE = "scene-"
FILE, FORMAT = "edits.json", "saminv.edits.1"
EFFECT, EDITABILITY, CONSISTENCY, DISTANCE = "effect", "editability", "consistency", "distance"

EDITS: dict[str, dict[str, tuple[str, str]]] = {
    EFFECT: {
        "edit-effect": (
            f"Change of a factor by an edit ({', '.join(WELL_READ)}; mean of them), as the demo's vision network reads "
            "it, relative to the same edit of the scene's own code; 1 is a full effect.",
            HIGHER,
        ),
        "edit-drift": ("RMS change by these edits outside the edited car, pictures in [-1, 1].", LOWER),
    },
    EDITABILITY: {
        "editability": (
            "Part of an edit's change that reaches the picture, relative to the picture of the styles alone: mean over "
            "the first five principal components of the styles, one standard deviation each; 1 as in W+.",
            HIGHER,
        ),
    },
    CONSISTENCY: {
        "lec": (
            "Latent editing consistency: distance of the styles when the picture is edited along the first principal "
            "component by one standard deviation, inverted by the same method, and the edit undone.",
            LOWER,
        ),
        "lec-relative": ("The same in lengths of the edit; 0 if every code comes back.", LOWER),
    },
    DISTANCE: {
        "prior-distance": (
            "Mahalanobis distance of the styles under the generator's prior, root mean square over slots; about the "
            "root of the dimension for samples.",
            LOWER,
        ),
    },
}
"""What can be measured of edits: each with its columns, what these are, and which way is better."""


@dataclass(frozen=True)
class Edits:
    """Which measures of edits a table has.

    Attributes:
        measures: Names of :data:`EDITS`.
        generator: Of all solutions.
    """

    measures: tuple[str, ...]
    generator: AbstractGenerator

    @classmethod
    def of(cls, names: Sequence[str] | None, generator: AbstractGenerator, scenes: bool) -> Edits:
        """The measures that were asked for; all that there are for the pictures where None.

        Raises:
            InputError: If one is unknown, named twice, or needs scenes of the demo world and there are none.
        """
        possible = [name for name in EDITS if scenes or name != EFFECT]
        chosen = possible if names is None else list(names)
        if not set(chosen) <= set(EDITS) or len(set(chosen)) < len(chosen):
            raise InputError(f"edits must be different ones of: {', '.join(EDITS)}; got {', '.join(map(str, chosen))}.")
        if not set(chosen) <= set(possible):
            raise InputError(
                f"The {EFFECT} of an edit is known for scenes of the demo world only, given as a number of pictures; "
                f"of others there are: {', '.join(possible)}."
            )
        return cls(tuple(chosen), generator)

    @property
    def definitions(self) -> dict[str, str]:
        """What each column is."""
        return {name: f"{text} {better.capitalize()} is better." for name, (text, better) in self._columns.items()}

    @property
    def better(self) -> dict[str, str]:
        """Which way is better, by column."""
        return {name: better for name, (_, better) in self._columns.items()}

    @property
    def _columns(self) -> dict[str, tuple[str, str]]:
        return {name: column for measure in self.measures for name, column in EDITS[measure].items()}

    def measure(self, place: Path, settings: Mapping[str, Any], batch: int, progress: bool = False) -> Each:
        """Columns of a finished run, by column and picture.

        Args:
            place: Folder of the run.
            settings: With which it inverts, arguments of :func:`saminv.invert`.
            batch: Solutions at a time.
            progress: Show a bar.

        Raises:
            RunError: If what was kept of an earlier measurement is damaged.
        """
        if not self.measures:
            return {}
        kept = _Kept(place)
        for measure in self.measures:
            done = set(kept.values.get(measure, {}))
            total = sum(name not in done for name in kept.hashes)
            with tqdm(total=total, unit="image", desc=measure, disable=not progress or not total) as bar:
                for names, solution in _chunks(place, self.generator, done, batch):
                    kept.add(measure, names, _MEASURES[measure](names, solution, settings))
                    bar.update(len(names))
        return {
            column: {name: found[column] for name, found in kept.values.get(measure, {}).items() if name in kept.hashes}
            for measure in self.measures
            for column in EDITS[measure]
        }


class _Kept:
    """Values of single pictures beside the run, each with the hash of the picture that it is of."""

    def __init__(self, place: Path) -> None:
        self.path = place / FILE
        _, records = read_manifest(place)
        self.hashes = {name: record["sha256"] for name, record in records.items() if "solution" in record["files"]}
        self.values: dict[str, dict[str, dict[str, float]]] = {}
        for measure, found in self._read().items():
            same = {name: entry["values"] for name, entry in found.items() if entry["sha256"] == self.hashes.get(name)}
            self.values[measure] = same

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            found: dict[str, Any] = content["measures"]
            for entry in (entry for pictures in found.values() for entry in pictures.values()):
                {"sha256": str(entry["sha256"]), "values": {key: float(x) for key, x in entry["values"].items()}}
            return found
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path} is damaged: {error}. Delete it; edits are then measured again.") from error

    def add(self, measure: str, names: Sequence[str], columns: Mapping[str, Sequence[float]]) -> None:
        """Write down the values of some pictures."""
        for index, name in enumerate(names):
            found = {column: float(values[index]) for column, values in columns.items()}
            self.values.setdefault(measure, {})[name] = found
        content = {
            measure: {name: {"sha256": self.hashes[name], "values": values} for name, values in found.items()}
            for measure, found in self.values.items()
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, "measures": content}) + "\n", encoding="utf-8")


def solutions_of(place: Path, generator: AbstractGenerator) -> Iterator[tuple[str, Solution]]:
    """What a run has made, in the order of the names of the pictures."""
    _, records = read_manifest(place)
    for name in sorted(records):
        if "solution" in records[name]["files"]:
            yield name, Solution.load(place / records[name]["files"]["solution"], generator=generator)


def _chunks(
    place: Path, generator: AbstractGenerator, done: set[str], batch: int
) -> Iterator[tuple[list[str], Solution]]:
    """Solutions that are not done yet, a few at a time."""
    found: list[tuple[str, Solution]] = []
    for name, solution in solutions_of(place, generator):
        found += [(name, solution)] if name not in done else []
        if len(found) == batch:
            yield [name for name, _ in found], Solution.join([solution for _, solution in found])
            found = []
    if found:
        yield [name for name, _ in found], Solution.join([solution for _, solution in found])


def scene_seed(name: str) -> int:
    """The seed of a scene that was written under a name."""
    return int(name.removeprefix(SCENE))


def _effects(names: Sequence[str], solution: Solution, _: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    found = [_scene(scene_seed(name), solution.generator).measure(solution[k]) for k, name in enumerate(names)]
    return {f"edit-{key}": [one[f"mean_{key}"] for one in found] for key in ("effect", "drift")}


@functools.lru_cache(maxsize=64)
def _scene(seed: int, generator: AbstractGenerator) -> SceneEdits:
    scene, clean = (sample_scenes(1, seed, strangers=strangers) for strangers in (seed % 2 == 0, False))
    return SceneEdits(scene, clean, generator, code_seed=seed - HELD_OUT)


def _parts(_: Sequence[str], solution: Solution, __: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    return {"editability": editability(solution).tolist()}


def _round_trips(_: Sequence[str], solution: Solution, settings: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    [direction] = principal_directions(solution.generator, solution.provenance.get("label"), 1)
    again: Callable[[Tensor], Solution] = functools.partial(invert, **settings)
    found = editing_consistency(solution, direction, invert=again)
    return {"lec": found.latent.tolist(), "lec-relative": found.relative.tolist()}


def _distances(_: Sequence[str], solution: Solution, __: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    return {"prior-distance": latent_distance(solution).tolist()}


_MEASURES: dict[str, Callable[[Sequence[str], Solution, Mapping[str, Any]], dict[str, Sequence[float]]]] = {
    EFFECT: _effects,
    EDITABILITY: _parts,
    CONSISTENCY: _round_trips,
    DISTANCE: _distances,
}
