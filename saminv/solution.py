"""The result of an inversion: data, and its safetensors file.

A file holds the latents, the regions, the image, the per-image statistics and, in its metadata, the settings and the
fingerprint of the generator. Loading executes nothing and refuses another generator.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from ._errors import InputError, OutputError, SolutionError, Status
from ._files import atomic_write
from ._types import Latents, flatten, map_latents, unflatten
from .regions import Regions

FORMAT = "saminv.solution.1"
PER_IMAGE = ("crops", "names")
"""Parts of the provenance that have an entry for each image."""


@dataclass(eq=False)
class Solution:
    """Inverted images, one row each.

    Attributes:
        latents: Values by space and tensor name, each `[B, ...]`.
        image: Reconstruction `[B, 3, H, W]`, nominally in [-1, 1].
        target: What was inverted `[B, 3, H, W]`.
        regions: Which pixel belongs to which space.
        status: `[B]`, codes of :class:`saminv.Status`.
        stats: Further numbers per image, each `[B]`: "psnr", "loss", "steps" ...
        provenance: Settings, generator fingerprint and name, crops; plain JSON values.
        segments: `[B, H, W]` ids of the segments the regions were refined with, if any.
        generator: The generator that renders it; not stored in the file.
    """

    latents: Latents
    image: Tensor
    target: Tensor
    regions: Regions
    status: Tensor
    stats: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    segments: Tensor | None = None
    generator: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return self.image.shape[0]

    @classmethod
    def join(cls, solutions: Sequence[Solution]) -> Solution:
        """The images of several solutions of one generator, with the same spaces and the same numbers, in one.

        Settings are those of the first one.

        Raises:
            InputError: If there are none, or they do not go together.
        """
        if not solutions:
            raise InputError("There are no solutions to join.")
        first = solutions[0]
        for other in solutions:
            alike = other.spaces == first.spaces and other.stats.keys() == first.stats.keys()
            if not alike or other.provenance.get("fingerprint") != first.provenance.get("fingerprint"):
                raise InputError("Only solutions of one generator with the same spaces and numbers can be joined.")
        regions = first.regions
        for other in solutions[1:]:
            regions = regions.join(other.regions)
        names = {key: [x for s in solutions for x in s.provenance[key]] for key in PER_IMAGE if key in first.provenance}
        parts = [solution.segments for solution in solutions if solution.segments is not None]
        return replace(
            first,
            latents=map_latents(lambda *tensors: torch.cat(tensors), *(solution.latents for solution in solutions)),
            image=torch.cat([solution.image for solution in solutions]),
            target=torch.cat([solution.target for solution in solutions]),
            regions=regions,
            status=torch.cat([solution.status for solution in solutions]),
            stats={name: torch.cat([solution.stats[name] for solution in solutions]) for name in first.stats},
            provenance={**first.provenance, **names},
            segments=torch.cat(parts) if len(parts) == len(solutions) else None,
        )

    def __getitem__(self, index: int | slice) -> Solution:
        """One image, or several, as a solution of their own."""
        if not isinstance(index, slice):
            index = operator.index(index)
            index = slice(index, index + 1 or None)
        rows = torch.tensor(range(len(self))[index], dtype=torch.int64)
        if rows.numel() == 0:
            raise IndexError(f"{index} is out of range for a solution of {len(self)} images.")
        provenance = {**self.provenance}
        for key in PER_IMAGE:
            if key in provenance:
                provenance[key] = [provenance[key][int(row)] for row in rows]
        return replace(
            self,
            latents=map_latents(lambda tensor: tensor[rows], self.latents),
            image=self.image[rows],
            target=self.target[rows],
            regions=self.regions.select(rows),
            status=self.status[rows],
            stats={name: value[rows] for name, value in self.stats.items()},
            provenance=provenance,
            segments=None if self.segments is None else self.segments[rows],
        )

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the spaces, most editable first."""
        return tuple(self.latents)

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Alias of ``stats``: numbers per image, each `[B]`."""
        return self.stats

    @property
    def statuses(self) -> list[Status]:
        """Status of each image."""
        return [Status(int(code)) for code in self.status]

    def edit(
        self,
        direction: Any,
        strength: float | Sequence[float] = 1.0,
        *,
        safe: Any = False,
        within: str | int | Tensor | Sequence[str | int] | None = None,
        follow: Any = "auto",
    ) -> Tensor:
        """Render the images with an edit (section 3.4 of the SAM report).

        Args:
            direction: Name of a direction of the generator, "class:K" for the change from the label to class K, a file,
                a tensor `[D]`, `[L, D]` or `[1, L, D]`, or tensors of parts of the styles by their sites, such as
                ``{"class": [E]}``; or several at once, as a table such as ``{"car_hue": 1.0, "car_x": -0.5}`` or as
                pairs. See :func:`saminv.editing.find_direction`.
            strength: Multiple of the direction; several give one picture each.
            safe: Strengths are multiples of the largest step that keeps the prior's distance within bounds, for each
                image; a :class:`saminv.editing.Bounds` says which bounds.
            within: Names or ids of segments, one or several such as ``("car", "shadow")``, or a mask `[B, 1, H, W]`:
                all else is frozen, by blending features.
            follow: Finds a named class again where the edit has taken it: a segmenter or its name, or None to edit
                only where the segment was. "auto" is the segmenter of the inversion.

        Returns:
            `[B, 3, H, W]`, or `[B * K, 3, H, W]` for K strengths (all strengths of the first image first).

        Raises:
            InputError: For an unknown direction or segment, or impossible strengths.
        """
        from .editing import edit_solution

        return edit_solution(self, direction, strength, safe=safe, within=within, follow=follow)

    def sheet(self, edits: Sequence[tuple[str, float]] | None = None) -> Tensor:
        """The picture that shows input, segments, spaces, reconstruction, error and edits, one row per image.

        Returns:
            `[1, 3, H', W']` in [-1, 1].
        """
        from .editing.sheet import draw_sheet

        return draw_sheet(self, edits)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically.

        Raises:
            OutputError: If the place cannot be written, or the provenance holds something that no file can.
        """
        arrays = {f"latents/{key}": tensor for key, tensor in flatten(self.latents).items()}
        arrays |= {f"stats/{name}": value for name, value in self.stats.items()}
        arrays |= {"image": self.image, "target": self.target, "regions": self.regions.labels, "status": self.status}
        if self.segments is not None:
            arrays["segments"] = self.segments
        arrays = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in arrays.items()}
        header = {
            "format": FORMAT,
            "spaces": json.dumps(list(self.spaces)),
            "region_spaces": json.dumps(list(self.regions.spaces)),
            "formulation": self.regions.formulation,
            "provenance": json.dumps(self.provenance, default=_plain),
        }
        data, target = serialise(arrays, header), Path(path)
        if target.suffix != ".safetensors":
            raise OutputError(f"A solution is saved as *.safetensors, not {target.name!r}; change the file's suffix.")
        with atomic_write(target) as temporary:
            Path(temporary).write_bytes(data)
        return target

    @classmethod
    def load(cls, path: str | Path, generator: Any = None) -> Solution:
        """Read a solution.

        Args:
            path: The file.
            generator: The generator it was made with, or its name; None takes the name that the file states.

        Raises:
            SolutionError: If the file is missing, damaged, no solution, or of another generator.
        """
        return read_solution(path)._attach(generator, path)

    def _check(self) -> None:
        """Raise ``ValueError`` where the parts of a file do not belong together."""
        if not isinstance(self.provenance, dict) or not self.latents:
            raise ValueError("no provenance or no latents")
        count, _, height, width = self.image.shape
        picture, plane, number = (count, 3, height, width), (count, height, width), (count,)
        parts: list[tuple[str, Tensor, tuple[int, ...]]] = [("image", self.image, picture)]
        parts += [("target", self.target, picture), ("status", self.status, number)]
        parts += [("regions", self.regions.labels, plane)]
        parts += [] if self.segments is None else [("segments", self.segments, plane)]
        parts += [(name, value, number) for name, value in self.stats.items()]
        for name, tensor, expected in parts:
            if tuple(tensor.shape) != expected:
                raise ValueError(f"{name} is {list(tensor.shape)}, not {list(expected)}")
        for name, tensor in flatten(self.latents).items():
            if tensor.shape[:1] != number or not tensor.is_floating_point():
                raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)} for {count} images")
        if not {int(code) for code in self.status} <= set(Status):
            raise ValueError(f"unknown status among {self.status.tolist()}")

    def _find_generator(self, name: str | Path | None, path: str | Path) -> Any:
        """The generator called ``name``, or the one that the file states."""
        from ._open import load_generator

        if name is not None:
            return load_generator(name)
        stated = self.provenance.get("generator", "demo")
        try:
            return load_generator(stated)
        except InputError as error:
            raise SolutionError(
                f"{path} was made with a generator that has no name here ({stated!r}); pass it, or its file, as "
                "generator=."
            ) from error

    def _attach(self, generator: Any, path: str | Path) -> Solution:
        if generator is None or isinstance(generator, (str, Path)):
            generator = self._find_generator(generator, path)
        expected = self.provenance.get("fingerprint")
        if expected != generator.fingerprint:
            raise SolutionError(
                f"{path} belongs to another generator: it was made with fingerprint {str(expected)[:16]}..., this one "
                f"has {generator.fingerprint[:16]}.... Pass the generator it was made with as generator=."
            )
        if tuple(self.image.shape[-2:]) != tuple(generator.image_size):
            raise SolutionError(
                f"{path} holds images of {list(self.image.shape[-2:])}, but the generator makes {generator.image_size} "
                "(height, width): the weights are the same, the crop is another."
            )
        device, dtype = generator.device, generator.dtype
        return replace(
            self,
            latents=map_latents(lambda tensor: tensor.to(device, dtype), self.latents),
            image=self.image.to(device),
            target=self.target.to(device),
            regions=self.regions.to(device),
            status=self.status.to(device),
            stats={name: value.to(device) for name, value in self.stats.items()},
            segments=None if self.segments is None else self.segments.to(device),
            generator=generator,
        )


def read_solution(path: str | Path) -> Solution:
    """A solution from its file, without its generator: there is all but what has to be rendered.

    Raises:
        SolutionError: If the file is missing, damaged, or no solution.
    """
    header, arrays = _read(Path(path))
    try:
        order, region_spaces = json.loads(header["spaces"]), tuple(json.loads(header["region_spaces"]))
        found = unflatten({k[8:]: v for k, v in arrays.items() if k.startswith("latents/")})
        solution = Solution(
            latents={name: found[name] for name in order},
            image=arrays["image"],
            target=arrays["target"],
            regions=Regions(arrays["regions"], region_spaces, header["formulation"]),  # type: ignore[arg-type]
            status=arrays["status"],
            stats={k[6:]: v for k, v in arrays.items() if k.startswith("stats/")},
            provenance=json.loads(header["provenance"]),
            segments=arrays.get("segments"),
        )
        solution._check()
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise SolutionError(f"{path} is damaged: {error!r}. Restore it from a copy or invert again.") from error
    return solution


def _plain(thing: Any) -> Any:
    """Numbers and arrays of numpy and torch as plain JSON values."""
    if hasattr(thing, "tolist"):
        return thing.tolist()
    raise OutputError(f"The provenance holds a {type(thing).__name__}, which no file can; keep plain values in it.")


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    """Metadata and arrays of a solution file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SolutionError(f"{path} {what}; a solution is a file such as car.safetensors.")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise SolutionError(
                    f"{path} is a safetensors file but no solution of saminv (format {header.get('format')!r}, "
                    f"expected {FORMAT!r})."
                )
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, SolutionError):
            raise
        raise SolutionError(f"{path} is no readable solution ({error}); it may be truncated.") from error
