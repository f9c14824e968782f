"""Directions found without labels, and boundaries found with them, against the named factors of the demo's scenes.

A direction stands for a factor if the coordinate of random codes along it correlates with the factor's own coordinate
by 0.6 or more. As many random directions are held against it: where a few factors make up most of the variance
of w, chance finds these as well. What the best direction does is read off pictures, by moving other samples along it.
Boundaries are fitted to labels that the vision network reads off the samples, and tried on others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from common import Options, Record, Scene, figure, generator, parse, report, run
from common import table as markdown
from measures import vision
from torch import Tensor

from saminv.demo import factors_from_z
from saminv.demo.scenes import BINARY_FACTORS, FACTOR_INDEX, FACTORS
from saminv.demo.train_directions import coordinates
from saminv.editing import DirectionSet, fit_boundary, ganspace_directions, sefa_directions
from saminv.editing._samples import pictures, sample_codes
from saminv.metrics.editing import change

NAMED = 0.6
"""Correlation from which a direction stands for a factor."""
VISIBLE = 0.05
"""Change of a factor, as a part of its range, from which strength 1 is seen to move it."""
COUNT = 20
JUDGED, FITTED, HELD_OUT = 5000, 2000, 1000
"""Samples by which correlations are measured, boundaries are fitted, and boundaries are tried."""
FEATURES = 2000
SEEDS = {"judged": 61, "moved": 62, "fitted": 63, "held out": 64, "random": 65}
DRAWS = 20
GROUPS = {"0-1": range(2), "2-5": range(2, 6), "6-": range(6, 64)}
"""Style slots of the groups of the SeFa paper."""
WHITENED = "SeFa, whitened"
JOBS = ("GANSpace of w", "GANSpace of F4", "SeFa", WHITENED, "boundaries")
FOUND = JOBS[:4]


def directions(job: str) -> dict[str, Tensor]:
    """What a method finds, `[L, D]` by name."""
    if job.startswith("GANSpace"):
        found = ganspace_directions(generator(), COUNT, "F4" if job.endswith("F4") else None, samples=_samples(job))
        return {name: direction.styles for name, direction in found.directions.items()}
    rows = {}
    for group, found in by_weights(job == WHITENED).items():
        rows |= {f"{name} of {group}": direction.styles for name, direction in found.directions.items()}
    return rows


def by_weights(whiten: bool) -> dict[str, DirectionSet]:
    """What SeFa finds in each group of style slots."""
    slots = range(generator().num_styles)
    return {
        group: sefa_directions(generator(), COUNT, [slot for slot in wanted if slot in slots], whiten=whiten)
        for group, wanted in GROUPS.items()
    }


def _samples(job: str) -> int | None:
    return FEATURES if job.endswith("F4") else None


@functools.lru_cache(maxsize=1)
def judged() -> tuple[Tensor, Tensor]:
    """Codes `[N, D]` and the coordinates of their factors `[N, F]`."""
    z = generator().sample_z(JUDGED, SEEDS["judged"])
    codes = torch.cat([generator().mapping(part)[:, 0] for part in z.split(500)])
    return codes.double(), coordinates(factors_from_z(z))


@torch.no_grad()
def correlations(rows: Tensor) -> Tensor:
    """Size of the correlation of the coordinates along rows `[K, D]` with the factors: `[K, F]`."""
    codes, factors = judged()
    along = codes @ torch.nn.functional.normalize(rows.double(), dim=1).t()
    along, factors = ((x - x.mean(dim=0)) / x.std(dim=0) for x in (along, factors))
    return (along.t() @ factors / len(along)).abs()


def by_chance(count: int) -> float:
    """Mean number of factors that as many random directions stand for."""
    source = torch.Generator().manual_seed(SEEDS["random"])
    width = generator().style_dim
    hits = []
    for _ in range(DRAWS):
        rows = torch.linalg.qr(torch.randn(width, min(count, width), generator=source))[0].t()
        hits.append(float((correlations(rows).amax(dim=0) >= NAMED).sum()))
    return sum(hits) / len(hits)


@torch.no_grad()
def moved(direction: Tensor, factor: str, options: Options) -> float:
    """Mean change of a factor from strength -1/2 to 1/2, read off pictures of random samples."""
    styles = generator().mapping(generator().sample_z(options.scenes, SEEDS["moved"]))
    ends = []
    for strength in (-0.5, 0.5):
        shown = [generator().synthesis(part + strength * direction) for part in styles.split(8)]
        read = [vision().factors(image.clamp(-1, 1)) for image in shown if isinstance(image, Tensor)]
        ends.append(torch.cat(read)[:, FACTOR_INDEX[factor]])
    return float(change(*ends, vision().config.period(factor)).mean())


def discovered(job: str, options: Options) -> Record:
    """The best direction of a method for each factor."""
    found = directions(job)
    rows = torch.stack([styles[styles.abs().sum(dim=1).argmax()] for styles in found.values()])
    best, which = correlations(rows).max(dim=0)
    names = [list(found)[k] for k in which.tolist()]
    effect = {
        factor: moved(found[name], factor, options) if r >= NAMED else None
        for factor, name, r in zip(FACTORS, names, best.tolist())
    }
    return {
        "r": dict(zip(FACTORS, best.tolist())),
        "direction": dict(zip(FACTORS, names)),
        "moved": effect,
        "named": int((best >= NAMED).sum()),
        "chance": by_chance(len(found)),
        "count": len(found),
    }


@torch.no_grad()
def read_samples(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes `[N, D]`, their factors as the network reads them, and as their latents mean them, `[N, F]` each."""
    codes = sample_codes(generator(), count, seed)
    read = torch.cat([vision().factors(image) for image in pictures(generator(), codes)])
    return codes, read, factors_from_z(generator().sample_z(count, seed))


def boundaries(options: Options) -> Record:
    """Accuracy of the boundaries of the binary factors on samples that were not used."""
    codes, read, _ = read_samples(FITTED, SEEDS["fitted"])
    others, truth, meant = read_samples(HELD_OUT, SEEDS["held out"])
    found: Record = {}
    for name in BINARY_FACTORS:
        column = FACTOR_INDEX[name]
        boundary = fit_boundary(codes, (read[:, column] > 0.5).double())
        side = boundary.classify(others)
        found[name] = {
            "read": float((side == (truth[:, column] > 0.5)).double().mean()),
            "meant": float((side == (meant[:, column] > 0.5)).double().mean()),
            "common": float(torch.stack([truth[:, column] > 0.5, truth[:, column] <= 0.5]).double().mean(dim=1).max()),
        }
    return found


def task(chunk: Scene, options: Options) -> Record:
    """One method; ``chunk.index`` counts them."""
    job = JOBS[chunk.index]
    return {"job": job, **(boundaries(options) if job == "boundaries" else discovered(job, options))}


def factor_table(records: Sequence[Record]) -> str:
    """The best direction of each method by factor."""
    rows = []
    for factor in FACTORS:
        row: list[object] = [factor]
        for record in records:
            row += [record["r"][factor], record["direction"][factor], record["moved"][factor]]
        rows.append(row)
    last: list[object] = ["named factors"]
    for record in records:
        last += [str(record["named"]), f"of {record['count']} directions", None]
    headers = ["Factor"]
    for record in records:
        headers += [f"{record['job']}, correlation", "direction", "moved by strength 1"]
    return markdown(headers, [*rows, last])


def boundary_table(record: Record) -> str:
    """Accuracy of the boundaries by factor."""
    kinds = ("read", "meant", "common")
    rows = [[name, *(record[name][kind] for kind in kinds)] for name in BINARY_FACTORS]
    return markdown(["Boundary", "accuracy", "accuracy, factors of the latents", "share of the commoner side"], rows, 3)


def ungrouped() -> int:
    """Number of factors that SeFa's directions stand for if all style slots count together."""
    found = sefa_directions(generator(), COUNT)
    rows = torch.stack([direction.styles[0] for direction in found.directions.values()])
    return int((correlations(rows).amax(dim=0) >= NAMED).sum())


def seen(record: Record) -> int:
    """Number of factors that their direction moves visibly."""
    return sum(moved is not None and abs(moved) >= VISIBLE for moved in record["moved"].values())


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("directions", __doc__, argv, scenes=24)
    records = run("directions", task, range(len(JOBS)), options)
    found, fitted = records[: len(FOUND)], records[len(FOUND)]
    bars = {job: {} if job == WHITENED else {"at_least": 6} for job in FOUND}
    figures = [figure(f"{r['job']}: factors with a direction", float(r["named"]), **bars[r["job"]]) for r in found]
    figures += [figure(f"of these, moved by {VISIBLE:g} or more: {r['job']}", float(seen(r))) for r in found]
    figures += [figure(f"as many random directions as {r['job']}: factors", r["chance"]) for r in found]
    figures += [figure(f"SeFa over all style slots at once, {COUNT} directions: factors", float(ungrouped()))]
    above = [value for found in by_weights(False).values() for value in found.values["above_random"]]
    figures += [figure(f"directions of SeFa beyond random weights, of {len(above)}", float(sum(v > 1 for v in above)))]
    figures += [
        figure(f"boundary of {name}: accuracy on {HELD_OUT:,} held-out samples", fitted[name]["read"], at_least=0.9)
        for name in BINARY_FACTORS
    ]
    report("directions", options, [factor_table(found), boundary_table(fitted)], figures, records)


if __name__ == "__main__":
    main()
