"""From instances that overlap to segments that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import InputError
from ._segmenter import AbstractNetworkSegmenter


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects found in one image.

    Attributes:
        masks: Bool `[N, H, W]`; they may overlap.
        classes: Class of each, int64 `[N]`.
        scores: Confidence of each, `[N]`.
    """

    masks: Tensor
    classes: Tensor
    scores: Tensor

    def placed(self, threshold: float, overlap: float) -> list[tuple[int, Tensor]]:
        """Give every pixel to the most confident object there.

        Args:
            threshold: Objects of a lower score are left out.
            overlap: An object is left out if more than this share of it belongs to more confident ones.

        Returns:
            Class and pixels, bool `[H, W]`, of each object that is left, the most confident first. They are disjoint.

        Reference:
            Kirillov et al., "Panoptic Segmentation", 2018, arXiv:1801.00868, section 5.
        """
        taken = torch.zeros(self.masks.shape[1:], dtype=torch.bool, device=self.masks.device)
        found = []
        for index in self.scores.argsort(descending=True, stable=True).tolist():
            mask = self.masks[index]
            area = int(mask.sum())
            free = mask & ~taken
            visible = int(free.sum())
            if float(self.scores[index]) < threshold or visible == 0 or area - visible > overlap * area:
                continue
            taken |= mask
            found.append((int(self.classes[index]), free))
        return found


@dataclass(frozen=True, eq=False)
class AbstractInstanceSegmenter(AbstractNetworkSegmenter):
    """One segment per object, and the rest of the picture.

    The id of the k-th object of a class, counted from 1 and from the most confident, is the class's id plus k times the
    number of names. The rest has its class's id alone.

    Attributes:
        threshold: Objects of a lower score are left out.
        overlap: An object is left out if more than this share of it belongs to more confident ones.
        separate: Whether objects of a class are segments of their own; else a class is one segment.
    """

    size: int = 800
    threshold: float = 0.5
    overlap: float = 0.5
    separate: bool = True

    def _check(self) -> None:
        super()._check()
        if not (0 <= self.threshold <= 1 and 0 <= self.overlap <= 1):
            raise InputError(
                f"threshold and overlap must lie in [0, 1]; got threshold={self.threshold}, overlap={self.overlap}."
            )

    def _ids(self, rest: Tensor, placed: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Paint objects, by class and pixels, over the class `[H, W]` of everything else; merge, and count objects."""
        ids = torch.tensor(self.table, device=rest.device)[rest]
        ranks: Counter[int] = Counter()
        for label, mask in placed:
            merged = self.table[label]
            ranks[merged] += 1
            ids[mask] = merged + ranks[merged] * len(self.names) * self.separate
        return ids
