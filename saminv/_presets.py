"""Published ways to invert, as sequences of inversions: ``saminv.invert(img, preset="pti")``.

Each is a few stages; a stage begins where the one before has ended. All use the optimiser, losses and steps of the
library, so that what they differ in is what their papers differ in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._registry import Registry

FREE = {"prior": 0.0, "deviation": 0.0}
"""Weights of a search that no prior holds back."""
PIXEL = 15.0
"""The library's weight of the squared error."""


@dataclass(frozen=True)
class Stage:
    """One inversion of a preset.

    Attributes:
        spaces: As for :func:`saminv.invert`; None is the generator's own choice.
        share: Part of the steps.
        settings: Further arguments of :func:`saminv.invert`.
    """

    spaces: tuple[str, ...] | None
    share: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A published way to invert.

    Attributes:
        name: As it is asked for.
        title: In a few words.
        reference: Authors, year, arXiv id.
        stages: In their order; their shares sum to 1.
    """

    name: str
    title: str
    reference: str
    stages: tuple[Stage, ...]

    def steps(self, total: int) -> list[int]:
        """Steps of each stage; the last one has what the others leave."""
        counts = [round(stage.share * total) for stage in self.stages[:-1]]
        return [*counts, total - sum(counts)]


PRESETS: Registry[Preset] = Registry("preset")


def _add(name: str, title: str, reference: str, *stages: Stage) -> None:
    PRESETS.add(name, Preset(name, title, reference, stages))


_add(
    "sam",
    "segments go to the most editable space that fits them",
    "Parmar, 2022, arXiv 2206.08357",
    Stage(None),
)
_add(
    "w",
    "projection into W, noise maps kept free of signal",
    "Karras et al., 2020, arXiv 1912.04958, appendix D",
    Stage(("W", "N"), settings={"encoder": "mean", "weights": {**FREE, "noise": 0.0, "correlation": 1e3}}),
)
_add(
    "w+",
    "one style per layer, without a prior",
    "Abdal et al., 2019, arXiv 1904.03189",
    Stage(("W+",), settings={"encoder": "mean", "weights": FREE}),
)
_add(
    "gaussian",
    "one style per layer, under a Gaussian prior",
    "Wulff and Torralba, 2020, arXiv 2009.06529",
    Stage(("W+",), settings={"encoder": "mean", "weights": {"deviation": 0.0}}),
)
_add(
    "hybrid",
    "one style per layer, from where an encoder points",
    "Zhu et al., 2016, arXiv 1609.03552",
    Stage(("W+",), settings={"weights": FREE}),
)
_add(
    "idinvert",
    "one style per layer, held to what an encoder says of the picture",
    "Zhu et al., 2020, arXiv 2004.00049",
    # Twice the weight of the squared error, as in the paper.
    Stage(("W+",), settings={"weights": {**FREE, "domain": 2 * PIXEL}}),
)
_add(
    "i2s++",
    "styles first, then the noise maps",
    "Abdal et al., 2020, arXiv 1911.11544",
    Stage(("W+",), 0.6, {"encoder": "mean", "weights": FREE}),
    Stage(("W+", "N"), 0.4, {"frozen": ("W+",), "weights": {**FREE, "noise": 0.0}}),
)
_add(
    "padding",
    "styles and what surrounds the features",
    "Bai et al., 2022, arXiv 2203.11105",
    Stage(("W+", "P")),
)
_add(
    "fs",
    "styles and one whole feature",
    "Yao et al., 2022, arXiv 2202.02183",
    Stage(("W+", "FS5")),
)
_add(
    "pti",
    "a pivot in W, then the weights of the generator around it",
    "Roich et al., 2021, arXiv 2106.05744",
    Stage(("W",), 0.56, {"encoder": "mean", "weights": FREE}),
    Stage(
        ("W", "G"),
        0.44,
        {"frozen": ("W",), "stop_at": {"perceptual": 0.06}, "weights": {**FREE, "l2": 1.0, "perceptual": 1.0}},
    ),
)
_add(
    "dhr",
    "styles, then weights and a feature of what these cannot make",
    "Cao et al., 2023, arXiv 2301.12141",
    Stage(("W+",), 0.5, {"weights": FREE}),
    Stage(("W+", "F6", "G"), 0.5, {"frozen": ("W+",), "weights": FREE}),
)
