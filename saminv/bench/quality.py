"""Methods times pictures: how close each comes, after how many steps and seconds.

Every method is a run of its own (:func:`saminv.runs.run`) below the folder of the results, so what was interrupted goes
on and what is there is not done again. Pictures of other programs are scored beside ours by the same metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import images
from .._arguments import DEFAULT_STEPS, metric_name
from .._errors import InputError, RunError
from .._files import atomic_write, ensure_folder
from .._open import open_generator
from .._sources import Item
from ..demo.write_scenes import write_scenes
from ..editing._draw import Cell, Page, enlarge, panel_size
from ..generators import AbstractGenerator
from ..metrics import METRICS, SET_METRICS, get_metric
from ..runs import RunReport, collect, run
from ..runs.stream import file_hash
from .ceilings import device_name
from .edits import HELD_OUT, Edits, scene_seed, solutions_of
from .methods import METHODS, Method, find_methods
from .protocols import PROTOCOLS, RANDOM, Protocol
from .rows import Pairs, QualityReport, Row, definition, score_pairs
from .splits import Entry, Split, check_split, check_within, read_list

TOGETHER = 8
PICTURES = "pictures"
SECONDS = "Wall time of the inversions per picture; pictures of a batch share it."


def measure_quality(
    pictures: int | Sequence[str | Path],
    methods: Sequence[str] = METHODS,
    out: str | Path = "saminv-bench",
    *,
    generator: str | Path | AbstractGenerator = "demo",
    steps: int | Sequence[int] = DEFAULT_STEPS,
    metrics: Sequence[str] | None = None,
    edits: Sequence[str] | None = (),
    encoder: str | Path = "auto",
    like: str | None = None,
    train_list: str | Path | None = None,
    test_list: str | Path | None = None,
    same_names: bool = False,
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
        methods: Names of :data:`saminv.PRESETS` in any case; spaces separated by commas, such as "W+,F6"; or "encoder"
            or the name of one, which is what it says without a step.
        out: Folder of the results; runs are continued there.
        generator: As for :func:`saminv.invert`.
        steps: Of each inversion; several give a curve.
        metrics: Names of metrics per picture and of sets; those of the protocol, or those that suit the generator,
            where None.
        edits: Measures of edits besides, of :data:`saminv.bench.edits.EDITS`; None for all that can be measured.
        encoder: Where methods start that do not say it themselves, as for :func:`saminv.invert`.
        like: Name of the paper whose protocol is followed, of :data:`saminv.bench.protocols.PROTOCOLS`.
        train_list, test_list: Folders, or text files of paths, of the pictures that something was trained on and is
            tested on, which must not overlap; the test is ``pictures`` where it is None.
        same_names: Whether both may have files of one name that show different pictures.
        external: Folders of pictures by other programs, by the name of each; a picture is found by its name without
            suffix and has the generator's size.
        batch, workers: As for :func:`saminv.runs.run`.
        shown: Pictures on the sheet.
        progress: Show bars.
        settings: Further arguments of :func:`saminv.invert`.

    Raises:
        InputError: For anything unusable, with what is allowed; also where training and test overlap.
        RunError: If the folder holds runs with other settings.
        WeightsError: If a metric needs weights that are neither here nor can be fetched.
    """
    opened = open_generator(generator, settings.get("device", "auto"))
    protocol = None if like is None else PROTOCOLS.get(str(like).lower())
    chosen = _metrics(metrics, opened, settings.get("metric", "auto"), protocol)
    sizes = {} if protocol is None else dict(protocol.sizes)
    columns = Edits.of(edits, opened, isinstance(pictures, int))
    found = find_methods(methods, [steps] if isinstance(steps, int) else list(steps), encoder, opened)
    folder = ensure_folder(out)
    items, sources = _pictures(pictures, folder, opened, protocol, settings.get("seed", 0))
    split = _split(train_list, test_list, [item.path for item in items], same_names, progress)
    # Builds each metric once, so that missing weights are told before the work and not after it.
    defined = {name: definition(name, sizes.get(name)) for name in chosen}
    options = {"batch": batch, "workers": workers, "progress": progress}
    study = _Study(opened, generator, items, chosen, sizes, columns, options, settings)
    done = [(method.title(found), *study.measure(method, folder, shown)) for method in found]
    done += [(name, *study.compare(name, Path(other), shown)) for name, other in (external or {}).items()]
    words = {**{name: text for name, (text, _) in defined.items()}, **columns.definitions, "seconds": SECONDS}
    return QualityReport(
        generator=opened.name or opened.fingerprint,
        fingerprint=opened.fingerprint,
        device=device_name(opened.device),
        pictures=len(items),
        image_size=opened.image_size,
        sources=sources,
        settings={**_plain(settings), "encoder": Path(str(encoder)).name, "batch": batch},
        protocol=None if protocol is None else protocol.name,
        notes=_notes(protocol, split, opened, len(items), chosen),
        definitions=words,
        better={**{name: better for name, (_, better) in defined.items()}, **columns.better},
        rows=[row for _, row, _ in done],
        sheet=_sheet({title: panel for title, _, panel in done}, opened.image_size),
    )


Panel = Mapping[str, tuple[Tensor, Tensor]]
"""What a method has made of pictures, and these, by name."""


@dataclass(frozen=True)
class _Study:
    """What all rows of a table have in common.

    Attributes:
        generator: Opened.
        given: The generator as it was named, which further processes open by themselves.
        items: The pictures.
        metrics: By name.
        sizes: At which single metrics compare.
        edits: What is measured of edits.
        options: Of the runs.
        settings: Of the inversions.
    """

    generator: AbstractGenerator
    given: Any
    items: Sequence[Item]
    metrics: Sequence[str]
    sizes: Mapping[str, tuple[int, int]]
    edits: Edits
    options: Mapping[str, Any]
    settings: Mapping[str, Any]

    def measure(self, method: Method, folder: Path, shown: int) -> tuple[Row, Panel]:
        """The row of a method and its first pictures; what is there already is not inverted again."""
        place = folder / "methods" / method.slug
        given = {**self.settings, **method.arguments, "steps": method.steps}
        files = [item.path for item in self.items]
        report = run(files, place, keep=("solution",), **self.options, **given, generator=self.given)
        _note_time(place, report)
        pairs, failed = _solved(place, self.generator), len(report.failed)
        row = score_pairs(method.name, method.steps, pairs, self.metrics, _seconds(place), failed, self.sizes)
        each = self.edits.measure(place, {**given, "generator": self.generator}, **self._chunks)
        return row.with_values(each), _first(_solved(place, self.generator), shown)

    def compare(self, name: str, folder: Path, shown: int) -> tuple[Row, Panel]:
        """The row of another program, and its first pictures."""
        row = score_pairs(name, None, _foreign(self.items, folder, self.generator), self.metrics, sizes=self.sizes)
        return row, _first(_foreign(self.items, folder, self.generator), shown)

    @property
    def _chunks(self) -> dict[str, Any]:
        return {name: self.options[name] for name in ("batch", "progress")}


def _metrics(
    names: Sequence[str] | None, generator: AbstractGenerator, minimised: Any, protocol: Protocol | None
) -> list[str]:
    """Names of metrics, checked; where none are given those of the protocol, or the usual ones."""
    usual = ["psnr", "mse", "ssim", metric_name(minimised, generator)] if protocol is None else protocol.metrics
    chosen = list(dict.fromkeys(usual)) if names is None else list(names)
    unknown = [name for name in chosen if name not in METRICS and name not in SET_METRICS]
    if unknown or len(set(chosen)) < len(chosen):
        known = ", ".join([*METRICS, *SET_METRICS])
        raise InputError(f"metrics must be different names of: {known}; got {', '.join(map(str, chosen))}.")
    return chosen


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are a word or a number."""
    return {name: value for name, value in settings.items() if isinstance(value, (str, int, float))}


def _notes(
    protocol: Protocol | None, split: Split | None, generator: AbstractGenerator, count: int, metrics: list[str]
) -> list[str]:
    found = [] if protocol is None else protocol.notes(generator, count, metrics)
    return found if split is None else [*found, f"{split}"]


def _pictures(
    given: int | Sequence[str | Path], folder: Path, generator: AbstractGenerator, protocol: Protocol | None, seed: int
) -> tuple[list[Item], dict[str, str]]:
    """The pictures, and what each is by its name: a scene, or the hash of its file."""
    if isinstance(given, int):
        if generator.name != "demo":
            raise InputError("A number of pictures means scenes of the demo world; name files or folders instead.")
        if given < 1:
            raise InputError(f"The number of pictures must be from 1 up, got {given}.")
        items = collect(write_scenes(folder / PICTURES, given, HELD_OUT))
        return items, {item.name: f"demo scene {scene_seed(item.name)}" for item in items}
    taken: dict[str, Any] = {}
    if protocol is not None and protocol.count is not None:
        taken = {"limit": protocol.count, "shuffle_seed": seed if protocol.order == RANDOM else None}
    # Named as the runs name them, which get the single files.
    items = collect([item.path for item in collect([str(path) for path in given], **taken)])
    return items, {item.name: _identity(item.path) for item in items}


def _identity(path: Path) -> str:
    try:
        return f"sha256 {file_hash(path)}"
    except OSError:
        return "not readable"


def _split(training: Any, test: Any, pictures: Sequence[Path], same_names: bool, progress: bool) -> Split | None:
    """Two lists that do not overlap; None where there is no list of a training."""
    tested = [Entry(path) for path in pictures] if test is None else read_list(test)
    if test is not None:
        check_within(pictures, tested)
    return None if training is None else check_split(read_list(training), tested, same_names, progress)


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
    for name, solution in solutions_of(place, generator):
        yield name, solution.image, solution.target


def _foreign(items: Sequence[Item], folder: Path, generator: AbstractGenerator) -> Pairs:
    """What another program has made of the same pictures."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} of pictures by another program.")
    there = {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}
    missing = [item.path.stem for item in items if item.path.stem not in there]
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} of {len(items)} pictures, for example {missing[0]}.")
    for item in sorted(items, key=lambda item: item.name):
        files = there[item.path.stem], item.path
        made, target = (images.fit(images.load(file), generator.image_size)[0] for file in files)
        yield item.name, made, target


def _first(pairs: Pairs, count: int) -> Panel:
    """The first pictures, by name."""
    return {name: (image, target) for (name, image, target), _ in zip(pairs, range(count))}


def _sheet(panels: Mapping[str, Panel], size: tuple[int, int]) -> Tensor | None:
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
