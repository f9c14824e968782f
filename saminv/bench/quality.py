"""Methods times pictures: how close each comes, after how many steps and seconds.

Every method is a run of its own (:func:`saminv.runs.run`) below the folder of the results, so what was interrupted goes
on and what is there is not done again. Pictures of other programs are scored beside ours by the same metrics.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import images
from .._arguments import DEFAULT_STEPS, metric_name
from .._errors import InputError, RunError
from .._files import atomic_write, ensure_folder
from .._open import open_generator
from .._presets import PRESETS
from ..demo.write_scenes import write_scenes
from ..editing._draw import Cell, Page, enlarge, panel_size
from ..generators import AbstractGenerator
from ..metrics import METRICS, SET_METRICS, get_metric, get_set_metric, score
from ..metrics.sets import AbstractFeatureDistance
from ..runs import RunReport, collect, read_manifest, run
from ..solution import Solution
from .ceilings import device_name

METHODS = ("w+", "pti", "sam")
HELD_OUT = 50_000
"""Seed of the first scene of the demo world; no training draws scenes from there on."""
TOGETHER = 8
PICTURES = "pictures"
LOWER, HIGHER = "lower is better", "higher is better"


@dataclass(frozen=True)
class Row:
    """What a method has reached with a number of steps.

    Attributes:
        method: As it was asked for.
        steps: Of each inversion; None for pictures of another program.
        images: How many it has done.
        means: Of each metric over the pictures; of a metric of sets, its value.
        errors: Standard error of the mean of each metric that has one.
        seconds: Per picture, batches shared out; None where it is unknown.
        failed: Pictures that it could not do.
    """

    method: str
    steps: int | None
    images: int
    means: dict[str, float]
    errors: dict[str, float]
    seconds: float | None
    failed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: means by the names of the metrics, standard errors as ``NAME_se``; None if infinite."""
        means = {name: value if math.isfinite(value) else None for name, value in self.means.items()}
        errors = {f"{name}_se": value for name, value in self.errors.items()}
        more = {"steps": self.steps, "images": self.images, "failed": self.failed, "seconds": self.seconds}
        return {"method": self.method, **more, **means, **errors}


@dataclass
class QualityReport:
    """Methods times pictures.

    Attributes:
        generator: Its name, or its fingerprint.
        device: The machine, in words.
        pictures: How many were asked for.
        image_size: (height, width) at which they are compared.
        definitions: What each figure is, by its name.
        rows: One for each method and number of steps.
        sheet: Pictures of some scenes by all methods `[1, 3, H', W']`.
    """

    generator: str
    device: str
    pictures: int
    image_size: tuple[int, int]
    definitions: dict[str, str]
    rows: list[Row]
    sheet: Tensor | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("rows", "sheet")}
        return {**kept, "image_size": list(self.image_size), "rows": [row.to_dict() for row in self.rows]}


def measure_quality(
    pictures: int | Sequence[str | Path],
    methods: Sequence[str] = METHODS,
    out: str | Path = "saminv-bench",
    *,
    generator: str | Path | AbstractGenerator = "demo",
    steps: int | Sequence[int] = DEFAULT_STEPS,
    metrics: Sequence[str] | None = None,
    external: Mapping[str, str | Path] | None = None,
    batch: int = TOGETHER,
    workers: int = 1,
    shown: int = 4,
    progress: bool = False,
    **settings: Any,
) -> QualityReport:
    """Invert pictures by several methods and score what they give.

    Args:
        pictures: Files and folders; or a number of scenes of the demo world that its generator never saw, every other
            one with strangers.
        methods: Names of :data:`saminv.PRESETS`, or spaces separated by commas, such as "W+,F6".
        out: Folder of the results; runs are continued there.
        generator: As for :func:`saminv.invert`.
        steps: Of each inversion; several give a curve.
        metrics: Names of metrics per picture and of sets; those that suit the generator where None.
        external: Folders of pictures by other programs, by the name of each; a picture is found by its name without
            suffix and has the generator's size.
        batch, workers: As for :func:`saminv.runs.run`.
        shown: Pictures on the sheet.
        progress: Show bars.
        settings: Further arguments of :func:`saminv.invert`.

    Raises:
        InputError: For anything unusable, with what is allowed.
        RunError: If the folder holds runs with other settings.
    """
    opened = open_generator(generator, settings.get("device", "auto"))
    budgets = [steps] if isinstance(steps, int) else list(steps)
    chosen = _metrics(metrics, opened, settings.get("metric", "auto"))
    found = [_method(name) for name in methods]
    different = len({_slug(name) for name in methods}) == len(found) and len(set(budgets)) == len(budgets)
    if not (found and budgets and different):
        raise InputError(f"methods and steps must each be named once, got {list(methods)} and {budgets}.")
    folder = ensure_folder(out)
    files = _pictures(pictures, folder, opened)
    rows, panels = [], {}
    for name, method in zip(methods, found):
        for count in budgets:
            place = folder / "methods" / f"{_slug(name)}-{count}"
            given = {**settings, **method, "generator": generator, "steps": count}
            report = run(files, place, batch=batch, workers=workers, keep=("solution",), progress=progress, **given)
            _note_time(place, report)
            pairs = _solved(place, opened)
            rows.append(_row(name, count, pairs, chosen, _seconds(place), len(report.failed)))
            panels[f"{name}, {count} steps" if len(budgets) > 1 else name] = _first(_solved(place, opened), shown)
    for name, other in (external or {}).items():
        rows.append(_row(name, None, _foreign(files, Path(other), opened), chosen, None, 0))
        panels[name] = _first(_foreign(files, Path(other), opened), shown)
    return QualityReport(
        generator=opened.name or opened.fingerprint,
        device=device_name(opened.device),
        pictures=len(files),
        image_size=opened.image_size,
        definitions=_definitions(chosen),
        rows=rows,
        sheet=_sheet(panels, opened.image_size),
    )


Pairs = Iterator[tuple[str, Tensor, Tensor]]
"""Name, reconstruction and target of picture after picture, `[1, 3, H, W]` each."""


def _metrics(names: Sequence[str] | None, generator: AbstractGenerator, minimised: str) -> list[str]:
    """Names of metrics, checked; the usual ones with that of the loss where none are given."""
    usual = dict.fromkeys(["psnr", "mse", "ssim", metric_name(minimised, generator)])
    chosen = list(usual) if names is None else list(names)
    unknown = [name for name in chosen if name not in METRICS and name not in SET_METRICS]
    if unknown or len(set(chosen)) < len(chosen):
        known = ", ".join([*METRICS, *SET_METRICS])
        raise InputError(f"metrics must be different names of: {known}; got {', '.join(map(str, chosen))}.")
    return chosen


def _method(name: str) -> dict[str, Any]:
    """What a method is, as arguments of ``invert``."""
    if name.lower() in PRESETS:
        return {"preset": name.lower()}
    spaces = [space.strip() for space in name.split(",")]
    if len(spaces) == 1 and not re.fullmatch(r"[A-Z]+\+?[\d\[\],-]*", name):
        # A word that is no space either: the registry knows what is near.
        PRESETS.get(name)
    return {"spaces": spaces}


def _slug(name: str) -> str:
    """A method's name as that of a folder, on any file system."""
    return re.sub(r"[^\w+-]+", "_", name.lower())


def _pictures(given: int | Sequence[str | Path], folder: Path, generator: AbstractGenerator) -> list[Path]:
    if isinstance(given, int):
        if generator.name != "demo":
            raise InputError("A number of pictures means scenes of the demo world; name files or folders instead.")
        if given < 1:
            raise InputError(f"The number of pictures must be from 1 up, got {given}.")
        return write_scenes(folder / PICTURES, given, HELD_OUT)
    return [item.path for item in collect([str(path) for path in given])]


def _note_time(place: Path, report: RunReport) -> None:
    """Add what this call took to what earlier ones took."""
    if report.fresh:
        fresh, seconds = _times(place)
        with atomic_write(place / "seconds.json") as temporary:
            found = {"pictures": fresh + report.fresh, "seconds": seconds + report.seconds}
            temporary.write_text(json.dumps(found) + "\n", encoding="utf-8")


def _times(place: Path) -> tuple[int, float]:
    path = place / "seconds.json"
    if not path.is_file():
        return 0, 0.0
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return int(found["pictures"]), float(found["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error!r}. Delete it; the times of that run are lost.") from error


def _seconds(place: Path) -> float | None:
    count, seconds = _times(place)
    return seconds / count if count else None


def _solved(place: Path, generator: AbstractGenerator) -> Pairs:
    """What a run has made, in the order of the names of the pictures."""
    _, records = read_manifest(place)
    for name in sorted(records):
        if "solution" in records[name]["files"]:
            solution = Solution.load(place / records[name]["files"]["solution"], generator=generator)
            yield name, solution.image, solution.target


def _foreign(files: Sequence[Path], folder: Path, generator: AbstractGenerator) -> Pairs:
    """What another program has made of the same pictures."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} of pictures by another program.")
    there = {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}
    missing = [path.stem for path in files if path.stem not in there]
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} of {len(files)} pictures, for example {missing[0]}.")
    for path in sorted(files, key=lambda path: path.stem):
        made, target = (images.fit(images.load(file), generator.image_size)[0] for file in (there[path.stem], path))
        yield path.stem, made, target


def _row(
    method: str, steps: int | None, pairs: Pairs, metrics: Sequence[str], seconds: float | None, failed: int
) -> Row:
    """Scores over all pictures, a few in memory at a time."""
    single = {name: get_metric(name) for name in metrics if name in METRICS}
    sets = {name: get_set_metric(name) for name in metrics if name not in METRICS}
    values: dict[str, list[float]] = {name: [] for name in single}
    count = 0
    for _, image, target in pairs:
        made, wanted = image.float().clamp(-1, 1), target.float()
        count += 1
        for name, metric in single.items():
            values[name] += score(made, wanted, [metric])[metric.name].tolist()
        for of_set in sets.values():
            of_set.update(made)
            if isinstance(of_set, AbstractFeatureDistance):
                of_set.update_reference(wanted)
    means = {name: statistics.fmean(found) for name, found in values.items() if found}
    # The PSNR of equal pictures is infinite.
    spread = {name: found for name, found in values.items() if len(found) > 1 and math.isfinite(means[name])}
    errors = {name: statistics.stdev(found) / math.sqrt(len(found)) for name, found in spread.items()}
    means |= {name: float(metric.compute()) for name, metric in sets.items() if count}
    return Row(method, steps, count, means, errors, seconds, failed)


def _definitions(metrics: Sequence[str]) -> dict[str, str]:
    """What each figure is."""
    found = {}
    for name in metrics:
        metric = get_metric(name) if name in METRICS else get_set_metric(name)
        first = (type(metric).__doc__ or "").strip().split("\n\n")[0]
        better = HIGHER if getattr(metric, "higher_is_better", False) else LOWER
        found[name] = f"{' '.join(first.split())} Pictures in [-1, 1], clamped; {better}."
    found["seconds"] = "Wall time of the inversions per picture; pictures of a batch share it."
    return found


def _first(pairs: Pairs, count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The first pictures, by name."""
    return {name: (image, target) for (name, image, target), _ in zip(pairs, range(count))}


def _sheet(panels: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]], size: tuple[int, int]) -> Tensor | None:
    """Targets and what each method makes of them, a row for each picture."""
    names = list(dict.fromkeys(name for found in panels.values() for name in found))
    if not names:
        return None
    page = Page(panel_size(*size), 1 + len(panels))
    page.add_header([("picture", ""), *((method, "") for method in panels)])
    for name in names:
        [(_, target), *_] = [found[name] for found in panels.values() if name in found]
        cells = [_cell(target, page, name)]
        for found in panels.values():
            if name not in found:
                cells.append(Cell())
                continue
            image = found[name][0].float().clamp(-1, 1)
            psnr = float(get_metric("psnr").compare(image, target.float()))
            cells.append(_cell(image, page, f"{psnr:.1f} dB"))
        page.add_row(cells)
    return images.from_uint8(page.pixels())


def _cell(image: Tensor, page: Page, line: str) -> Cell:
    pixels = images.to_uint8(torch.nan_to_num(image.detach().cpu().float()))[0]
    return Cell(enlarge(pixels, page.panel), lines=[line])
