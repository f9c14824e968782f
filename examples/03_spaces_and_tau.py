"""What tau does: from "everything where it is reconstructed best" to "everything where it can be edited".

Inverts a scene in single spaces and by SAM at several tau, prints a table and writes tau.csv and one sheet.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import saminv
from saminv import images
from saminv.editing import direction_names
from saminv.editing.sheet import draw_sheet

SPACES = ["W+", "F4", "F6", "F8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--taus", type=float, nargs="+", default=[0.05, 0.15, 0.3, 0.6])
    parser.add_argument("--single", nargs="*", default=["W+", "F4", "F8"], help="spaces to use alone")
    parser.add_argument("--seed", type=int, default=12, help="of the scene")
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    scene = saminv.demo.sample_scenes(1, seed=options.seed, strangers=True)
    solutions = {name: saminv.invert(scene.images, [name], steps=options.steps) for name in options.single}
    for tau in options.taus:
        solutions[f"tau {tau:g}"] = saminv.invert(scene.images, SPACES, tau, steps=options.steps)

    rows = []
    for name, solution in solutions.items():
        shares = dict.fromkeys(SPACES, 0.0)
        shares |= {space: solution.regions.share(space).item() for space in solution.regions.spaces}
        row = {"name": name, "psnr": solution.stats["psnr"].item(), "error": solution.stats["demo"].item(), **shares}
        if "car_hue" in direction_names(solution.generator):
            # How much a fixed edit does is a first measure of how editable an inversion is.
            row["change by edit"] = (solution.edit("car_hue", 1.0) - solution.image).abs().mean().item()
        rows.append(row)
        print(f"{name:9s}", "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key != "name"))

    with open(options.out / "tau.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    first, *others = solutions
    sheet = draw_sheet(solutions[first], others={name: solutions[name] for name in others})
    images.save(options.out / "tau.png", sheet)
    print(f"wrote {options.out / 'tau.csv'} and {options.out / 'tau.png'}")


if __name__ == "__main__":
    main()
