"""Choosing tau: the whole curve, the tau that reaches a target, and thresholds by class.

Writes the distortion-editability curve and a sheet with a row for each allocation, then inverts once more with the most
editable allocation that reaches a PSNR between the ends of the curve.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import saminv
from saminv import images
from saminv.runs import describe_curve, save_sweep

SPACES = ["W+", "F4", "F6", "F8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--taus", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5, 1.0])
    parser.add_argument("--seed", type=int, default=12, help="of the scene")
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()
    scene = saminv.demo.sample_scenes(1, seed=options.seed, strangers=True)

    sweep = saminv.sweep(scene.images, options.taus, SPACES, steps=options.steps)
    report = save_sweep(sweep, options.out)
    print(describe_curve(report))

    ends = [sweep.solutions[0].stats["psnr"].item(), sweep.solutions[-1].stats["psnr"].item()]
    target = sum(ends) / 2
    found = saminv.invert(scene.images, SPACES, "auto", target_psnr=target, steps=options.steps)
    psnr, tau = found.stats["psnr"].item(), found.stats["tau"].item()
    print(f"\ntarget {target:.2f} dB: reached {psnr:.2f} dB at tau {tau:.3f}")
    images.save(options.out / "target-sheet.png", found.sheet())

    # The car stays editable whatever it costs, the rest is to look right.
    mixed = saminv.invert(scene.images, SPACES, {"car": 1.0, "*": 0.1}, steps=options.steps)
    shares = "  ".join(f"{name} {mixed.regions.share(name).item():.0%}" for name in mixed.regions.spaces)
    print(f"car at tau 1, all else at 0.1: {mixed.stats['psnr'].item():.2f} dB  {shares}")


if __name__ == "__main__":
    main()
