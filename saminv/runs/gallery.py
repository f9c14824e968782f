"""The gallery of a run: a page with its distributions and its worst, median and best pictures."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from .._errors import Status
from .._files import atomic_write, ensure_folder
from .._version import __version__
from ..editing._summary import percent
from ._panels import Panel, Panels, draw_panels, remove_others
from ._style import CSS
from .manifest import Record, now
from .summary import (
    COLUMNS,
    SHARE,
    Summary,
    digits_of,
    figure,
    histogram,
    numbers_of,
    printable,
)

PAGE = "gallery.html"
PICTURES = "summary"
SHOWN = ("psnr", "ssim", "perceptual", "steps", "seconds")
Group = tuple[str, str, list[str]]


def write_gallery(
    summary: Summary, out: str | os.PathLike[str] | None = None, *, by: str = "psnr", count: int = 6
) -> Path:
    """Write ``gallery.html``, which needs nothing from elsewhere, and its small pictures in ``summary/`` beside it.

    Args:
        summary: Of the run.
        out: Folder of the page; that of the run where None.
        by: Number by which pictures are ordered, one of ``saminv.runs.summary.RANKED``.
        count: Pictures of each kind.

    Raises:
        InputError: If ``by`` is unknown.
        OutputError: If something cannot be written.
    """
    groups = choose(summary, by, count)
    folder = ensure_folder(summary.folder if out is None else out)
    pictures = ensure_folder(folder / PICTURES)
    drawn = {
        name: draw_panels(summary.folder, summary.records[name], pictures) for _, _, names in groups for name in names
    }
    with atomic_write(folder / PAGE) as temporary:
        temporary.write_bytes(_page(summary, groups, drawn, folder, by).encode("utf-8", "replace"))
    remove_others(pictures, (panel.file for panels in drawn.values() for panel in panels.pictures))
    return folder / PAGE


def choose(summary: Summary, by: str, count: int) -> list[Group]:
    """Which pictures are shown: an anchor, a title and names for each group; no picture is in two."""
    ranked = summary.ranking(by)
    without = sorted(set(summary.records) - set(ranked))[:count]
    rest: list[Group] = [("unranked", f"Without {summary.title(by)}", without)] if without else []
    if len(ranked) <= count:
        return ([("all", f"All pictures, from worst to best by {summary.title(by)}", ranked)] if ranked else []) + rest
    each = max(1, min(count, len(ranked) // 3))
    middle = (len(ranked) - each) // 2
    return [
        ("worst", f"Worst by {summary.title(by)}", ranked[:each]),
        ("median", "About the median", ranked[middle : middle + each]),
        ("best", "Best", ranked[: -each - 1 : -1]),
        *rest,
    ]


def _page(summary: Summary, groups: list[Group], drawn: Mapping[str, Panels], folder: Path, by: str) -> str:
    title = _text(summary.folder.resolve().name or "run")
    sections = [("distributions", "Distributions", _distributions(summary))]
    sections += [(anchor, head, _cards(summary, names, drawn, folder, by)) for anchor, head, names in groups]
    sections += [("failed", "Passed over", _failed(summary))] if summary.failed else []
    sections += [("notes", "Noticed", _notes(summary))] if summary.notes else []
    sections += [("settings", "Settings", _settings(summary))]
    links = "".join(f'<li><a href="#{anchor}">{_text(head)}</a></li>' for anchor, head, _ in sections)
    body = "\n".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title"><h2 id="{anchor}-title">{_text(head)}</h2>\n'
        f"{content}</section>"
        for anchor, head, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} - saminv</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f'<header><h1>{title}</h1>\n<p class="faint">{_text(_subtitle(summary))}</p>\n{_tiles(summary)}</header>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main id="main">\n{body}\n</main>\n'
        f"<footer>saminv {__version__}, {now()}</footer>\n</body>\n</html>\n"
    )


def _subtitle(summary: Summary) -> str:
    settings = summary.settings
    parts = [f"generator {settings.get('generator') or 'of its own'}"]
    parts += [f"spaces {', '.join(map(str, settings['spaces']))}"] if settings.get("spaces") else []
    parts += [f"{settings['steps']} steps"] if "steps" in settings else []
    parts += [f"tau {json.dumps(settings['tau'])}"] if settings.get("tau") is not None else []
    return " · ".join(parts)


def _tiles(summary: Summary) -> str:
    found = summary.distributions
    tiles = [("inverted", str(len(summary.records))), ("passed over", str(len(summary.failed)))]
    tiles += [
        (f"median {summary.title(key)}", figure(key, "median", found[key]["median"])) for key in SHOWN if key in found
    ]
    cells = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in tiles)
    return f'<dl class="tiles">{cells}</dl>\n'


def _distributions(summary: Summary) -> str:
    found = summary.distributions
    if not found:
        return "<p>No picture has been inverted yet.</p>"
    names = [f"{name[1:]} %" if name[0] == "p" else name for name in COLUMNS]
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in ("", "histogram", *names))
    rows = []
    for key, row in found.items():
        cells = "".join(f"<td>{figure(key, name, row[name])}</td>" for name in COLUMNS)
        rows.append(f'<tr><th scope="row">{_text(summary.title(key))}</th><td>{_svg(summary, key)}</td>{cells}</tr>')
    return (
        '<p class="faint">The line in a histogram is the median.</p>\n'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of distributions"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def _svg(summary: Summary, key: str) -> str:
    """A histogram as a small drawing of 128 by 32."""
    counts, edges = histogram(summary, key)
    low, high, most = edges[0], edges[-1], max(1, counts.max())
    width = 128 / len(counts)
    bars = "".join(
        f'<rect x="{index * width:.1f}" y="{30 * (1 - n / most):.1f}" width="{max(1.0, width - 0.6):.1f}" '
        f'height="{30 * n / most:.1f}"/>'
        for index, n in enumerate(counts)
        if n
    )
    middle = 128 * (summary.distributions[key]["median"] - low) / (high - low)
    said = f"Histogram from {low:.{digits_of(key)}f} to {high:.{digits_of(key)}f}"
    return (
        f'<svg class="histogram" viewBox="0 0 128 32" preserveAspectRatio="none" role="img" aria-label="{_text(said)}">'
        f'{bars}<path class="axis" d="M0 31H128"/><path class="median" d="M{middle:.1f} 0V32"/></svg>'
    )


def _cards(summary: Summary, names: Iterable[str], drawn: Mapping[str, Panels], folder: Path, by: str) -> str:
    cards = (_card(summary, name, drawn[name], folder, by) for name in names)
    return f'<ul class="cards">{"".join(cards)}</ul>\n'


def _card(summary: Summary, name: str, panels: Panels, folder: Path, by: str) -> str:
    record = summary.records[name]
    wide = " wide" if any(panel.title == "sheet" for panel in panels.pictures) else ""
    shown = "".join(_panel(name, panel, folder) for panel in panels.pictures)
    notes = [*panels.remarks, *(record.get("warnings") or ())]
    return (
        f'<li class="card"><h3>{_text(name)}</h3>\n'
        + (f'<div class="panels{wide}">{shown}</div>\n' if shown else "")
        + _figures(summary, record, by)
        + _shares(record, panels)
        + f'<p class="status faint">{_text(_sentence(record))}</p>\n'
        + "".join(f'<p class="note">{_text(note)}</p>\n' for note in notes)
        + "</li>\n"
    )


def _panel(name: str, panel: Panel, folder: Path) -> str:
    height, width = panel.size
    image = (
        f'<img src="{_url(panel.file, folder)}" alt="{_text(f"{name}: {panel.title}")}" width="{width}" '
        f'height="{height}" loading="lazy">'
    )
    if panel.link is not None:
        image = f'<a href="{_url(panel.link, folder)}">{image}</a>'
    return f"<figure>{image}<figcaption>{_text(panel.title)}</figcaption></figure>"


def _figures(summary: Summary, record: Record, by: str) -> str:
    found = numbers_of(record)
    keys = [by, *(key for key in SHOWN if key != by)]
    cells = "".join(
        f"<div{' class=first' if key == by else ''}><dt>{_text(summary.title(key))}</dt>"
        f"<dd>{found[key]:.{digits_of(key)}f}</dd></div>"
        for key in keys
        if key in found
    )
    return f'<dl class="figures">{cells}</dl>\n'


def _shares(record: Record, panels: Panels) -> str:
    """Which part of the picture each space has, as a bar and a legend."""
    if not panels.legend:
        shares = [(key[len(SHARE) :], value) for key, value in numbers_of(record).items() if key.startswith(SHARE)]
        items = "".join(f"<li>{_text(name)} {percent(share)}</li>" for name, share in shares)
        return f'<ul class="legend">{items}</ul>\n' if items else ""
    bar = "".join(
        f'<span style="width:{100 * share:.3f}%;background:rgb{colour}"></span>' for colour, _, share in panels.legend
    )
    items = "".join(
        f'<li><span class="swatch" style="background:rgb{colour}"></span>{_text(name)} {percent(share)}</li>'
        for colour, name, share in panels.legend
    )
    return f'<div class="share" aria-hidden="true">{bar}</div>\n<ul class="legend">{items}</ul>\n'


def _sentence(record: Record) -> str:
    status = str(record.get("status"))
    return Status[status.upper()].sentence if status.upper() in Status.__members__ else status


def _failed(summary: Summary) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="text">{_text(reason)}</td></tr>'
        for name, reason in summary.failed.items()
    )
    head = '<thead><tr><th scope="col">picture</th><th scope="col">reason</th></tr></thead>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Pictures that were passed over"><table>'
        f"{head}<tbody>{rows}</tbody></table></div>\n"
    )


def _notes(summary: Summary) -> str:
    items = "".join(f"<li>{count} × {_text(text)}</li>" for text, count in summary.notes.items())
    return f'<p class="faint">With an example each.</p>\n<ul>{items}</ul>\n'


def _settings(summary: Summary) -> str:
    text = html.escape(json.dumps(dict(summary.settings), indent=2))
    return f"<details><summary>All settings of the run</summary><pre>{text}</pre></details>\n"


def _text(text: object) -> str:
    """Text for a page: whatever a picture is called, it is no part of the page's structure."""
    return html.escape(printable(text), quote=True)


def _url(path: Path, folder: Path) -> str:
    """Where a file lies as seen from the page."""
    return quote(os.fsencode(Path(os.path.relpath(path, folder)).as_posix()))
