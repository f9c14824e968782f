"""Add a latent space and a solver of your own; neither the generator nor the library changes.

The space shifts the colours of the whole picture. A scene in orange light shows what it is good for."""

from __future__ import annotations

import argparse

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
        return warm[self.name] if self.name in (warm or {}) else {"shift": styles.new_zeros(len(styles), 3, 1, 1)}

    def bind(self, generator, value, mask):
        return [Add(self.sites(generator)[0], value["shift"])]


class SignDescent(AbstractSolver[SolverState]):
    """Steps along the sign of the gradient, all of one size, smaller towards the end."""

    rate = 0.02

    def init(self, problem, y0, horizon):
        return SolverState.fresh(problem, y0, horizon)

    @torch.no_grad()
    def update(self, state, evaluation):
        rate = (self.rate * (1 - state.step / state.horizon) * state.running)[:, None]
        for name, value in state.y.items():
            for key, x in value.items():
                x -= (rate * evaluation.gradients[name][key].sign().flatten(1)).view_as(x)
        state.step += state.running
        state.status[state.step >= state.horizon] = int(saminv.Status.COMPLETED)
        return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    light = torch.tensor([0.25, 0.0, -0.35])
    target = (saminv.demo.sample_scenes(1, seed=12).images + light.view(1, 3, 1, 1)).clamp(-1, 1)
    for names in (["W+"], ["W+", "TINT"]):
        solution = saminv.invert(target, names, steps=steps)
        print(f"Adam, {' and '.join(names)}: {solution.stats['psnr'].item():.2f} dB")
    print("shift found", solution.latents["TINT"]["shift"].flatten().tolist(), "of", light.tolist())

    spaces, objective = resolve_spaces(names, solution.generator), saminv.Objective(get_metric("demo"))
    styles = solution.latents["W+"]["w"]
    problem = saminv.Problem(solution.generator, target, styles, spaces, solution.regions, objective)
    again = saminv.solve(problem, saminv.BestSoFar(SignDescent()), max_steps=steps)
    print(f"SignDescent, from the W+ that Adam found: {again.stats['psnr'].item():.2f} dB")


if __name__ == "__main__":
    main()
