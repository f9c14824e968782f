"""Add a latent space and a solver of your own; neither the generator nor the library changes.

The space shifts the colours of the whole picture. A scene in orange light shows what it is good for.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

import saminv
from saminv.metrics import get_metric
from saminv.optim import AbstractSolver, SolverState
from saminv.sites import Add
from saminv.spaces import SPACES, AbstractSpace, resolve_spaces


@SPACES.register("TINT")
class TintSpace(AbstractSpace):
    """One RGB shift `[B, 3, 1, 1]` of the last RGB image. It acts everywhere, so it has no part in the allocation."""

    rank = 50.0

    def __init__(self, name, options):
        self.name, self.options = name, options

    @classmethod
    def names(cls, generator):
        return ["TINT"]

    def sites(self, generator):
        return (next(name for name in reversed(list(generator.sites)) if generator.sites[name].kind == "rgb"),)

    def init(self, generator, styles, warm=None):
        return self._warm(warm, {"shift": styles.new_zeros(len(styles), 3, 1, 1)})

    def bind(self, generator, value, mask):
        return [Add(self.sites(generator)[0], value["shift"])]


@dataclass(frozen=True)
class SignDescent(AbstractSolver[SolverState]):
    """Steps of one size along the sign of the gradient, smaller towards the end."""

    rate: float = 0.02

    def init(self, problem, y0, horizon):
        return SolverState.fresh(problem, y0, horizon)

    @torch.no_grad()
    def update(self, state, evaluation):
        rate = self.rate * (1 - state.step / state.horizon) * state.running
        for name, value in state.y.items():
            for key, x in value.items():
                x -= rate.view(-1, *[1] * (x.dim() - 1)) * evaluation.gradients[name][key].sign()
        state.step += state.running
        state.status[state.step >= state.horizon] = int(saminv.Status.COMPLETED)
        return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    light = torch.tensor([0.25, 0.0, -0.35]).view(1, 3, 1, 1)
    target = (saminv.demo.sample_scenes(1, seed=12).images + light).clamp(-1, 1)
    for names in (["W+"], ["W+", "TINT"]):
        solution = saminv.invert(target, names, steps=options.steps)
        print(f"Adam         {'+'.join(names):8s} {solution.stats['psnr'].item():.2f} dB")
    print("shift found:", solution.latents["TINT"]["shift"].flatten().tolist(), "- used:", light.flatten().tolist())

    generator, styles = solution.generator, solution.latents["W+"]["w"]
    spaces = resolve_spaces(names, generator)
    regions, objective = saminv.Regions.uniform(1, generator.image_size, ["W+"], "W+"), get_metric("demo")
    problem = saminv.Problem(generator, target, styles, spaces, regions, saminv.Objective(objective))
    again = saminv.solve(problem, saminv.BestSoFar(SignDescent()), max_steps=options.steps)
    print(f"SignDescent  {'+'.join(names):8s} {again.stats['psnr'].item():.2f} dB, from the W+ that Adam found")


if __name__ == "__main__":
    main()
