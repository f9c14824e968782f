"""Class names of published segmentation networks, and rules that count several classes as one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .._errors import InputError


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


VOC = _names(
    """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
    motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""
)
"""The 21 classes of Pascal VOC 2012, as DeepLabV3 and LRASPP of torchvision number them."""

COCO_91 = _names(
    """background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
    street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
    hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
    baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife,
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,
    potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard,
    cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear,
    hair drier, toothbrush"""
)
"""Background and the 90 category numbers of COCO, as Mask R-CNN of torchvision uses them."""

COCO_UNUSED = frozenset(_names("street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door, blender"))
"""Category numbers of COCO without any annotation, which a trained network never predicts."""

COCO_THINGS = tuple(name for name in COCO_91[1:] if name not in COCO_UNUSED)
"""The 80 classes of COCO's instances, as detectron2 numbers them."""

COCO_STUFF = _names(
    """things, banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood, flower, fruit, gravel,
    house, light, mirror-stuff, net, pillow, platform, playingfield, railroad, river, road, roof, sand, sea, shelf,
    snow, stairs, tent, towel, wall-brick, wall-stone, wall-tile, wall-wood, water, window-blind, window, tree,
    fence, ceiling, sky, cabinet, table, floor, pavement, mountain, grass, dirt, paper, food, building, rock, wall,
    rug"""
)
"""The 53 stuff classes of COCO panoptic after "things", as detectron2's panoptic FPN numbers and calls them."""

ADE20K = _names(
    """wall, building, sky, floor, tree, ceiling, road, bed, window, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
    armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
    chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway,
    case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
    book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine,
    hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt track,
    apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
    conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike,
    cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen,
    blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor,
    bulletin board, shower, radiator, glass, clock, flag"""
)
"""The 150 classes of the ADE20K scene parsing benchmark, each by the first of its names."""

CELEBA_MASK = _names(
    """background, skin, l_brow, r_brow, l_eye, r_eye, eye_g, l_ear, r_ear, ear_r, nose, mouth, u_lip, l_lip, neck,
    neck_l, cloth, hair, hat"""
)
"""Background and the 18 parts of CelebAMask-HQ, as the published BiSeNet numbers them: eye_g are glasses, ear_r
earrings, neck_l a necklace."""


@dataclass(frozen=True)
class Merging:
    """Which classes count as one.

    Attributes:
        groups: Class names by the name of what they become. A name that is itself a class stands for that class too, so
            that ``{"car": ["truck", "van"]}`` makes cars, trucks and vans one class "car".

    Raises:
        InputError: If a class is in two groups, or a group is no list of names.
    """

    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owner: dict[str, str] = {}
        for group, members in self.groups.items():
            if isinstance(members, str) or not all(isinstance(member, str) for member in (group, *members)):
                raise InputError(f"Merging needs lists of class names by new name; {group!r} has {members!r}.")
            for member in members:
                if owner.setdefault(member, group) != group:
                    raise InputError(f"The class {member!r} is in two groups, {owner[member]!r} and {group!r}.")
        taken = [group for group in self.groups if owner.get(group, group) != group]
        if taken:
            raise InputError(f"{taken[0]!r} is the name of a group and a member of the group {owner[taken[0]]!r}.")
        object.__setattr__(self, "groups", {group: tuple(members) for group, members in self.groups.items()})

    @classmethod
    def of(cls, given: Merging | Mapping[str, Sequence[str]] | None) -> Merging:
        """Return ``given`` as a merging; None merges nothing."""
        if isinstance(given, Merging):
            return given
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"merging must be a mapping from new names to lists of class names, not {given!r}.")
        return cls(given or {})

    def resolve(self, classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Apply the rules to a network's classes.

        Returns:
            The names after merging, in the order of the first class of each, and for each class the index of its name.

        Raises:
            InputError: If a group names a class that is not among ``classes``; the message lists close ones.
        """
        renamed = {member: group for group, members in self.groups.items() for member in members}
        for name in renamed:
            if name not in classes:
                raise InputError(f"There is no class {name!r} to merge.{_hint(name, classes)}")
        merged = [renamed.get(name, name) for name in classes]
        names = tuple(dict.fromkeys(merged))
        return names, tuple(names.index(name) for name in merged)


def _hint(name: str, classes: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, classes, n=3, cutoff=0.5)
    # A short list helps more than a guess, a list of 150 does not.
    known = f" Classes: {', '.join(classes)}." if len(classes) <= 25 or not close else ""
    return (f" Close ones: {', '.join(map(repr, close))}." if close else "") + known


ADE20K_MERGING = Merging(
    {
        "ground": ("floor", "road", "earth"),
        "water": ("water", "river"),
        "car": ("car", "truck", "van"),
        "grass": ("grass", "field"),
    }
)
"""What the published code of SAM inversion merges of ADE20K's classes."""

COCO_MERGING = Merging(
    {
        "ground": ("floor-wood", "floor", "road", "dirt"),
        "water": ("water", "river"),
        "car": ("car", "truck"),
        "grass": ("grass", "playingfield"),
    }
)
"""The same idea for the classes of COCO panoptic."""

COCO_THINGS_MERGING = Merging({"car": ("car", "truck")})
"""The same idea for COCO's instances."""

FACE_MERGING = Merging(
    {
        "face": (
            *("skin", "l_brow", "r_brow", "l_eye", "r_eye", "l_ear", "r_ear"),
            *("nose", "mouth", "u_lip", "l_lip", "neck"),
        )
    }
)
"""What the published code of SAM inversion merges of a face: all that is skin, with brows, eyes, mouth and lips."""
