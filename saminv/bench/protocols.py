"""How papers compare: on which pictures, at which size, by which metrics, with what they leave unsaid said so.

How to add one: an entry of the table below. What a paper does not say goes into ``unsaid``, with what is done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .._registry import Registry
from ..generators import AbstractGenerator

FIRST, RANDOM, ALL = "first", "random", "all"
"""Which of the pictures are taken."""
SQUARE_256, SQUARE_1024 = (256, 256), (1024, 1024)


@dataclass(frozen=True)
class Domain:
    """What a paper trains and tests on, of one kind of picture.

    Attributes:
        name: Such as "cars".
        training, test: The data, in words.
        size: (height, width) of the pictures; None where it is that of the generator and not said.
    """

    name: str
    training: str
    test: str
    size: tuple[int, int] | None = None

    def __str__(self) -> str:
        size = "" if self.size is None else f", at {self.size[1]} x {self.size[0]}"
        return f"{self.name}: trained on {self.training}, tested on {self.test}{size}"


@dataclass(frozen=True)
class Protocol:
    """How a paper compares reconstructions.

    Attributes:
        name: As it is asked for.
        title: The paper.
        reference: Authors, year, arXiv id.
        metrics: Names of the metrics of its tables.
        domains: What it trains and tests on.
        count: Pictures of a test; None where that is all there are, or not said.
        order: Which ones.
        sizes: (height, width) at which single metrics compare; the generator's for others.
        unsaid: What the paper does not say, and what is done here.
    """

    name: str
    title: str
    reference: str
    metrics: tuple[str, ...]
    domains: tuple[Domain, ...]
    count: int | None = None
    order: str = ALL
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unsaid: str = ""

    def notes(self, generator: AbstractGenerator, pictures: int, metrics: list[str]) -> list[str]:
        """What a report by this protocol says beside its table."""
        taken = {
            FIRST: f"the first {self.count or 0:,} pictures",
            RANDOM: f"{self.count or 0:,} random pictures",
            ALL: "all pictures",
        }[self.order]
        found = [f"Protocol of {self.title} ({self.reference}): {', '.join(self.metrics)} over {taken}."]
        found += [f"{domain}." for domain in self.domains]
        found += [self.unsaid] if self.unsaid else []
        if self.count is not None and pictures != self.count:
            found.append(f"Not as in the paper: {pictures:,} pictures instead of {self.count:,}.")
        if sorted(metrics) != sorted(self.metrics):
            found.append(f"Not as in the paper: the metrics are {', '.join(metrics)}.")
        known = [domain.size for domain in self.domains if domain.size is not None]
        if known and len(known) == len(self.domains) and generator.image_size not in known:
            height, width = generator.image_size
            found.append(f"Not as in the paper: the generator's pictures are {width} x {height}.")
        return found


PROTOCOLS: Registry[Protocol] = Registry("protocol")


def _add(protocol: Protocol) -> None:
    PROTOCOLS.add(protocol.name, protocol)


_add(
    Protocol(
        "sam",
        "the SAM report, table 4.1",
        "Parmar, 2022, arXiv 2206.08357",
        ("psnr", "lpips-vgg"),
        (
            Domain("cars", "the train split of Stanford Cars", "LSUN Cars", (384, 512)),
            Domain("horses", "10,000 pictures of LSUN Horses", "other ones of LSUN Horses"),
            Domain("cats", "10,000 pictures of LSUN Cats", "other ones of LSUN Cats"),
            Domain("faces", "10,000 pictures of FFHQ", "CelebA-HQ"),
        ),
        count=1000,
        order=RANDOM,
        unsaid="The report names no seed of the random pictures and no size but that of cars; here the seed is that of "
        "the run, and pictures are compared at the generator's size.",
    )
)
_add(
    Protocol(
        "fse",
        "the Feature-Style paper, table 1",
        "Yao et al., 2022, arXiv 2202.02183",
        ("ssim", "psnr", "mse", "lpips-alex", "identity", "fid"),
        (
            Domain("faces", "FFHQ", "CelebA-HQ; directions of edits come from its first 10,000 pictures"),
            Domain("cars", "Stanford Cars", "pictures that are not said"),
            Domain("cats, dogs", "AFHQ", "pictures that are not said"),
        ),
        count=1000,
        order=FIRST,
        sizes={"lpips-alex": SQUARE_256},
        unsaid="The paper shows cars, cats and dogs without figures, and names neither the network of LPIPS, nor the "
        "file of ArcFace, nor sizes, nor the rule of resizing of FID; here LPIPS is AlexNet at 256 x 256, with which "
        "arXiv 2406.10601 finds the same for its encoder, and the others are as defined below.",
    )
)
_add(
    Protocol(
        "padinv",
        "the PadInv paper, table 1",
        "Bai et al., 2022, arXiv 2203.11105",
        ("mse", "lpips-alex"),
        (
            Domain("faces", "the first 65,000 pictures of FFHQ", "the test set of CelebA-HQ; the other 5,000 of FFHQ"),
            Domain("churches", "LSUN Church", "LSUN Church, by its official split"),
            Domain("bedrooms", "LSUN Bedroom", "LSUN Bedroom, by its official split"),
        ),
        unsaid="The paper names neither the network of LPIPS, nor the size and range of pictures that are compared; "
        "here it is AlexNet, at the generator's size, in [-1, 1].",
    )
)
_add(
    Protocol(
        "sfe",
        "StyleFeatureEditor, table 1",
        "Bobkov et al., 2024, arXiv 2406.10601",
        ("lpips-alex", "mse", "ms-ssim", "fid"),
        (Domain("faces", "FFHQ", "CelebA-HQ", SQUARE_1024),),
        sizes={"lpips-alex": SQUARE_256, "mse": SQUARE_256, "ms-ssim": SQUARE_1024},
        unsaid="Sizes are those of the published evaluation, which enlarges pictures for MS-SSIM by a bicubic rule and "
        "has FID resized inside its network; here enlarging is bilinear, and FID is as defined below.",
    )
)
