"""Numbers of a solution as plain values: for JSON reports and for the small tables of the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .._errors import Status

Row = dict[str, Any]


def summarise(provenance: Mapping[str, Any], stats: Mapping[str, Tensor], status: Tensor) -> list[Row]:
    """One row of JSON values per image, from the parts of a solution of the same names.

    Keys are "name", "psnr" (dB), "ssim", "perceptual", "metric", "steps", "status", "sentence", "shares" (part of the
    image's area by space) and "stats" (all numbers). What is unknown or not finite is None.
    """
    names = provenance.get("names") or []
    metric = provenance.get("metric")
    rows = []
    for index, code in enumerate(status.tolist()):
        numbers = {name: _finite(value[index].item()) for name, value in stats.items()}
        rows.append(
            {
                "name": names[index] if index < len(names) else f"image{index}",
                **{key: numbers.get(key) for key in ("psnr", "ssim", "steps")},
                "perceptual": numbers.get(metric) if isinstance(metric, str) else None,
                "metric": metric,
                "status": Status(code).name.lower(),
                "sentence": Status(code).sentence,
                "shares": {name[6:]: value for name, value in numbers.items() if name.startswith("share/")},
                "stats": numbers,
            }
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Rows of :func:`summarise` as lines of text: name, figures, share of the area by space, how the solve ended."""
    spaces = list(dict.fromkeys(space for row in rows for space in row["shares"]))
    lines = [["name", "PSNR dB", "SSIM", "perceptual", *spaces, "status"]]
    for row in rows:
        figures = [_number(row["psnr"], 2), _number(row["ssim"], 3), _number(row["perceptual"], 3)]
        shares = [percent(row["shares"][space]) if space in row["shares"] else "-" for space in spaces]
        lines.append([row["name"], *figures, *shares, row["sentence"]])
    return align(lines)


def align(lines: Sequence[Sequence[str]]) -> str:
    """Cells of text in columns: the first and the last to the left, all others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    last = len(widths) - 1
    padded = [[c.ljust(w) if i in (0, last) else c.rjust(w) for i, (c, w) in enumerate(zip(x, widths))] for x in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def percent(share: float | None) -> str:
    """A share in percent; a small one is not called none."""
    if share is None:
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _finite(value: Any) -> Any:
    """JSON has no infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
