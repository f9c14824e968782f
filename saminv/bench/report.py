"""Reports as text and as pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._plots import new_figure, save_figure
from .against import AgainstReport
from .ceilings import middle
from .compare import UNKNOWN, WORSE, Change, Comparison
from .descent import Tracks, reached
from .kernels import KernelReport
from .rows import QualityReport, Row
from .speed import SpeedReport, StepTime
from .target import TargetReport
from .written import row_words


def describe_speed(report: SpeedReport) -> str:
    """The report in lines."""
    ceilings = report.ceilings
    widths = ", ".join(f"{speed:.0f} at {width}" for width, speed in ceilings.convolution.items())
    lines = [
        f"{ceilings.device}, {ceilings.dtype}",
        f"  matrix products {ceilings.matmul:.0f} GFLOP/s, copies {ceilings.copy:.1f} GB/s",
        f"  3x3 convolutions, GFLOP/s by channels: {widths}",
        "",
        "step                                              ms   GFLOP  GFLOP/s  of convolution  GiB",
        *(_line(report, step) for step in [*report.steps, *report.scaling]),
        "",
    ]
    for step in report.steps:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in step.parts.items())
        lines.append(f"{step.workload.formulation}, ms by part: {parts}")
    for name, times in report.speedup.items():
        worst = max(report.gradient_difference[name].values())
        lines.append(f"{times:.2f} times as fast as the {name} formulation; gradients differ by {worst:.1e}.")
    return "\n".join(lines)


def _line(report: SpeedReport, step: StepTime) -> str:
    figures = (
        f"{step.median:9.1f} {step.gflop:7.1f} {step.gflops:8.1f} {report.share_of(step):14.0%} {step.peak_gib:5.2f}"
    )
    return f"{step.workload.words:<42} {figures}"


def plot_speed(report: SpeedReport, path: str | Path) -> Path:
    """Draw the parts of a step, and the cost by batch and resolution; returns the picture's path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(name for step in report.steps for name in step.parts))
    bottoms = [0.0] * len(report.steps)
    for name in names:
        heights = [step.parts.get(name, 0.0) for step in report.steps]
        left.bar([step.workload.formulation for step in report.steps], heights, bottom=bottoms, label=name)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights)]
    left.set(ylabel="ms of a step", title=report.steps[0].workload.words.partition(", ")[2])
    left.legend(fontsize=8)
    cases = [report.steps[0], *report.scaling]
    labels = [f"{step.workload.resolution}, batch {step.workload.batch}" for step in cases]
    right.barh(labels, [step.median / step.workload.batch for step in cases], color="grey")
    right.invert_yaxis()
    right.set(xlabel="ms of a step and image", title="by resolution and batch")
    return save_figure(figure, path)


def describe_quality(report: QualityReport) -> str:
    """The report as Markdown: what was compared, what each figure is, and the table."""
    height, width = report.image_size
    head = f"Generator {report.generator}, {report.pictures} pictures of {width} x {height}, {report.device}."
    notes = [line for note in report.notes for line in ("", note)]
    names = [name for name in report.definitions if name != "seconds"]
    shown = [name for name in names if any(name in row.means for row in report.rows)]
    lines = [
        head,
        *notes,
        "",
        *(f"- {name}: {meaning}" for name, meaning in report.definitions.items()),
        "",
        f"| method | steps | pictures | {' | '.join(shown)} | seconds |",
        f"| --- | ---: | ---: | {' | '.join('---:' for _ in shown)} | ---: |",
        *(_quality_line(row, shown) for row in report.rows),
    ]
    failed = [f"{row.method}: {row.failed} pictures could not be done." for row in report.rows if row.failed]
    return "\n".join([*lines, "", "Mean over the pictures, and its standard error.", *failed])


def _quality_line(row: Row, names: Sequence[str]) -> str:
    cells = []
    for name in names:
        error = f" ± {row.errors[name]:.2g}" if name in row.errors else ""
        cells.append(f"{row.means[name]:.4g}{error}" if name in row.means else "")
    steps, seconds = ("" if row.steps is None else str(row.steps)), "" if row.seconds is None else f"{row.seconds:.2f}"
    return f"| {row.method} | {steps} | {row.images} | {' | '.join(cells)} | {seconds} |"


def describe_comparison(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    judged = [change for change in comparison.changes if change.verdict != UNKNOWN]
    lines = [
        f"Before: {comparison.before}. After: {comparison.after}.",
        "",
        "| method | steps | figure | before | after | change | noise | |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | --- |",
        *(_change_line(change) for change in comparison.changes),
        "",
        f"A figure has changed if it moved by more than its noise and by more than {comparison.tolerance:.1%}. Of the "
        f"{len(judged)} judged, chance alone would call {comparison.level * len(judged):.2g} changed.",
        *comparison.notes,
    ]
    worse = [f"{change.metric} of {row_words([(change.method, change.steps)])}" for change in comparison.worse]
    return "\n".join([*lines, f"Worse: {', '.join(worse)}." if worse else "Nothing got worse."])


def _change_line(change: Change) -> str:
    steps = "" if change.steps is None else str(change.steps)
    noise = "" if change.noise is None else f"± {change.noise:.2g}"
    moved = f"{change.after - change.before:+.3g}"
    verdict = f"**{change.verdict}**" if change.verdict == WORSE else change.verdict
    cells = [change.method, steps, change.metric, f"{change.before:.4g}", f"{change.after:.4g}", moved, noise, verdict]
    return f"| {' | '.join(cells)} |"


def quality_table(report: QualityReport) -> str:
    """The rows as comma-separated values with a header."""
    rows = [row.to_dict() for row in report.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def plot_quality(report: QualityReport, path: str | Path) -> Path:
    """Draw each metric against the seconds of an inversion, a line for each method; returns the picture's path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    names = [name for name in report.definitions if name != "seconds"]
    figure = new_figure(4.5 * len(names), 4)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for method in dict.fromkeys(row.method for row in report.rows):
            rows = [row for row in report.rows if row.method == method and name in row.means]
            points = [(row.seconds, row.means[name]) for row in rows if row.seconds is not None]
            if points:
                axes.plot(*zip(*sorted(points)), marker="o", label=method)
            elif rows:
                axes.axhline(rows[0].means[name], linestyle="--", color="grey", label=method)
        axes.set(xlabel="seconds per picture", ylabel=name)
        axes.legend(fontsize=8)
    return save_figure(figure, path)


def describe_target(report: TargetReport) -> str:
    """The report in lines."""
    workload = report.workload
    what = f"generator {workload.generator}, batch {workload.batch}, {' '.join(workload.spaces)}"
    return "\n".join([f"{report.device}, {what}", "", *_reached_lines(report.tracks, report.levels)])


def _reached_lines(tracks: Tracks, levels: Sequence[float]) -> list[str]:
    """When each contender reached each level, as a table."""
    header = ["time to a PSNR (s, median; least to most)", *(f"{level:g} dB" for level in levels), "highest", "GiB"]
    rows = []
    for name, by_level in reached(tracks, levels).items():
        runs = tracks[name]
        highest = max(max(run.psnr) for run in runs)
        peak = max(run.peak_gib for run in runs)
        rows.append([name, *map(_reached_words, by_level.values()), f"{highest:.2f} dB", f"{peak:.2f}"])
    return table(header, rows)


def _reached_words(row: dict[str, Any] | None) -> str:
    if row is None:
        return "never"
    least, most = min(row["runs"]), max(row["runs"])
    return f"{row['seconds']:.2f} ({least:.2f} to {most:.2f}) in {row['steps']:g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in (header, *rows)
    ]


def plot_descents(tracks: Tracks, levels: Sequence[float], path: str | Path) -> Path:
    """Draw the PSNR over seconds, a line for each run; returns the picture's path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        OutputError: If the picture cannot be written.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for index, (name, runs) in enumerate(tracks.items()):
        for run in runs:
            axes.plot(run.seconds, run.psnr, color=f"C{index}", label=name if run is runs[0] else None)
    for level in levels:
        axes.axhline(level, color="lightgrey", linewidth=0.8, zorder=0)
    axes.set(xlabel="seconds", ylabel="PSNR (dB)", title="towards a target that the generator can render")
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def describe_kernels(report: KernelReport) -> str:
    """The report in lines."""
    lines = [report.device]
    if report.copy is not None:
        lines.append(f"  copies {report.copy:.0f} GB/s; a share is what that bandwidth would take, of what was taken")
    impls = list(dict.fromkeys(impl for row in report.rows for impl in row.milliseconds))
    header = ["kernel", "channels x height x width", "numbers", "pass", "MB", "differs by"]
    rows = []
    for row in report.rows:
        shape = " x ".join(map(str, row.shape))
        start = [row.kernel, shape, row.dtype, row.direction, f"{row.moved / 1e6:.1f}"]
        difference = f"{row.difference:.0e}" + ("" if row.agrees else " (too much)")
        cells = []
        for impl in impls:
            share = report.share(row, impl)
            cells.append("" if share is None else f"{row.milliseconds[impl]:.4f} {share:4.0%}")
        rows.append([*start, difference, *cells])
    lines += ["", *table([*header, *(f"{impl} ms, share" for impl in impls)], rows)]
    if report.interpreted:
        lines += ["", "Kernels were interpreted at tiny sizes: they were compared with their references, not timed."]
    return "\n".join(lines)


def describe_against(report: AgainstReport) -> str:
    """The report in lines."""
    workload = report.workload
    size = f"{workload.resolution} x {workload.resolution}, batch {workload.batch}"
    lines = [f"{report.folder} ({report.family}) beside saminv, {size}, {report.device}", ""]
    for gate in report.gates:
        word = "agrees" if gate.passed else "DIFFERS"
        lines.append(f"{word}: {gate.what}: {gate.difference:.1e} (at most {gate.tolerance:.0e}, float32, CPU)")
    if not report.passed:
        return "\n".join([*lines, "", "The published code computes something else, so no speed is told."])
    rows = [
        [name, f"{middle(times):.1f}", f"{min(times):.1f} to {max(times):.1f}", f"{cost.peak_gib:.2f}"]
        for name, cost in report.costs.items()
        for times in [cost.milliseconds]
    ]
    lines += ["", "A step, each in its own formulation; not the same loss:"]
    lines += table(["", "ms, median", "least to most", "GiB"], rows)
    lines += [f"  {name}: {cost.formulation}" for name, cost in report.costs.items()]
    lines += ["", "To a common target under a common loss (15 L2 + LPIPS):"]
    lines += _reached_lines(report.tracks, report.levels)
    return "\n".join([*lines, "", "LPIPS of both is ours with a random backbone: the published network is a download."])
