"""Where the SAM report and its published code differ, and where a feature's change acts: which choice is better.

Each row changes one choice of the default, on scenes with strangers, with the same steps, start and segments:

* masks: resized by a triangle filter (report) or by Lanczos (code);
* prior: Eq. 3.6 around the mean of LeakyReLU_5(w) with squared deviations from w0 (report), or around LeakyReLU_5 of
  the mean w with unsquared norms (code), with the weights of each;
* features: Eq. 3.7 as a sum of squares, in units of each channel's spread (report), or 5 times the mean (code);
* tap point: between a convolution and its ToRGB ("layer"), or after the ToRGB ("block", code).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from common import SAM, Options, Record, Scene, figure, generator, kept, median, metric, parse, report, run
from common import table as markdown
from measures import EDITED, EditTrial, reconstruction

from saminv import Adam, BestSoFar, Objective, Problem, Regions, Solution, solve
from saminv._arguments import DEFAULT_FEATURE_RATE, DEFAULT_RATE
from saminv._recipe import DEFAULT_TAU
from saminv.demo.segmenter import DemoSegmenter
from saminv.optim import Escalate
from saminv.optim.objective import PAPER_WEIGHTS, PUBLISHED_WEIGHTS
from saminv.spaces import AbstractSpace, make_space
from saminv.spaces._base import SpaceOptions


@dataclass(frozen=True)
class Variant:
    """The choices of one row."""

    masks: str = "paper"
    prior: str = "paper"
    features: str = "paper"
    tap_point: str = "layer"
    clamp: bool = False

    def spaces(self) -> tuple[AbstractSpace, ...]:
        """The spaces of SAM under these choices."""
        forms = {name: self.prior if name == "W+" else self.features for name in SAM}
        made = [SpaceOptions(form, self.tap_point, "blend", form == "paper") for form in forms.values()]
        return tuple(make_space(name, generator(), options) for name, options in zip(SAM, made))

    def weights(self) -> dict[str, float]:
        """Weights of the parts, each with its own form."""
        found = dict(PAPER_WEIGHTS)
        if self.clamp:
            found |= {name: PUBLISHED_WEIGHTS[name] for name in ("l2", "perceptual")}
        if self.prior == "published":
            found |= {name: PUBLISHED_WEIGHTS[name] for name in ("prior", "deviation")}
        if self.features == "published":
            found["feature"] = PUBLISHED_WEIGHTS["feature"]
        return found


VARIANTS = {
    "default": Variant(),
    "masks as published": Variant(masks="published"),
    "prior as published": Variant(prior="published"),
    "features as published": Variant(features="published"),
    "tap after the block": Variant(tap_point="block"),
    "all as published": Variant(*["published"] * 3, "block", clamp=True),
}


def solve_variant(scene: Scene, variant: Variant, options: Options) -> Solution:
    """Invert a scene by SAM under the choices of a variant."""
    target = scene.batch.images
    segments = DemoSegmenter()(target)
    problem = Problem(
        generator(),
        target,
        scene.start,
        variant.spaces(),
        Regions.uniform(1, (target.shape[2], target.shape[3]), SAM, "W+", formulation=variant.masks),  # type: ignore
        Objective(metric(), variant.weights(), clamp=variant.clamp),
    )
    # As in saminv.invert: the rate of features is in units of their spread where that is what they are measured in.
    rates = {"F": DEFAULT_FEATURE_RATE} if variant.features == "paper" else {}
    solver = Escalate(BestSoFar(Adam(rate=DEFAULT_RATE, rates=rates)), metric(), segments.ids, DEFAULT_TAU)
    solution = solve(problem, solver, max_steps=options.steps)
    # What Solution.edit has to know of the spaces.
    used = {"space_options": {"tap_point": variant.tap_point}, "spaces": list(SAM), "noise": "const"}
    return replace(solution, provenance={**solution.provenance, **used}, segments=segments.ids)


def task(scene: Scene, options: Options) -> Record:
    """Scores and edits of a scene for each variant."""
    trial = EditTrial(scene)
    rows = {}
    for name, variant in VARIANTS.items():
        key = ["variant", scene.index, asdict(variant), options.steps]
        solution = kept(key, lambda variant=variant: solve_variant(scene, variant, options), options)
        rows[name] = {**reconstruction(solution.image, scene.batch.images), **trial.measure(solution)}
    return {"rows": rows}


def variant_table(records: list[Record]) -> str:
    """Median scores, effects and drift by variant."""
    keys = ("psnr", "perceptual", "mean_effect", "mean_drift")
    rows = []
    for name in VARIANTS:
        effects = [median(records, "rows", name, "effect", factor) for factor in EDITED]
        rows.append([name, *(median(records, "rows", name, key) for key in keys), *effects])
    headers = ["Choices", "PSNR (dB)", "demo perceptual", "mean effect", "drift outside", *EDITED]
    return markdown(headers, rows, digits=3)


def choice_table() -> str:
    """What each variant stands for."""
    names = [field.name for field in fields(Variant) if field.name != "clamp"]
    headers = ["Choices", *(name.replace("_", " ") for name in names)]
    return markdown(headers, [[name, *(getattr(v, field) for field in names)] for name, v in VARIANTS.items()])


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("formulations", __doc__, argv)
    records = run("formulations", task, range(0, options.scenes, 2), options)
    base = median(records, "rows", "default", "psnr")
    found = []
    for name in list(VARIANTS)[1:]:
        other = median(records, "rows", name, "psnr")
        change = None if base is None or other is None else other - base
        found.append(figure(f"PSNR, {name} minus default", change, unit="dB"))
    report("formulations", options, [choice_table(), variant_table(records)], found, records)


if __name__ == "__main__":
    main()
