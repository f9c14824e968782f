"""What changed between two reports: paired and pooled noise, verdicts, refusals, and the exit code."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path

import pytest
from scipy import stats

from saminv import InputError, load_generator
from saminv.bench import compare_quality
from saminv.bench.edits import EDITS
from saminv.bench.report import describe_comparison
from saminv.cli import _parser, main

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {f"scene-{k}": f"demo scene {k}" for k in range(6)}
SPREAD = [20.0, 24.0, 28.0, 32.0, 36.0, 40.0]
"""PSNR of pictures that differ far more among themselves than two methods do."""


def report(**rows: list[float | None]) -> dict:
    """A report whose rows have the PSNR of six pictures."""
    found = []
    for method, values in rows.items():
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known)
        error = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1) / len(known))
        row = {"method": method, "steps": 40, "images": len(known), "failed": 6 - len(known), "seconds": 1.0}
        found.append({**row, "psnr": mean, "psnr_se": error, "each": {"psnr": values}})
    return {
        "generator": "demo",
        "fingerprint": "f" * 64,
        "device": "CPU",
        "pictures": 6,
        "image_size": [128, 128],
        "sources": dict(SOURCES),
        "settings": {"seed": 0},
        "protocol": None,
        "definitions": {"psnr": "dB.", "seconds": "Wall time."},
        "better": {"psnr": "higher"},
        "rows": found,
    }


def moved(by: list[float]) -> dict:
    return report(sam=[value + change for value, change in zip(SPREAD, by)])


def without_values(content: dict) -> dict:
    found = copy.deepcopy(content)
    for row in found["rows"]:
        del row["each"]
    return found


SMALL_LOSS = [-0.3, -0.5, -0.4, -0.6, -0.3, -0.4]
CHANCE = [-0.9, 0.8, -0.7, 1.0, -0.8, 0.4]


@pytest.mark.parametrize(
    ("by", "verdict"),
    [
        (SMALL_LOSS, "worse"),
        ([-x for x in SMALL_LOSS], "better"),
        (CHANCE, "same"),
        ([0.0] * 6, "same"),
        # Beyond noise, as all pictures moved alike, and too small for a word.
        ([-0.02] * 6, "same"),
        ([-0.04] * 6, "worse"),
    ],
)
def test_pictures_are_compared_one_by_one(by, verdict):
    [change] = compare_quality(report(sam=SPREAD), moved(by)).changes
    assert (change.verdict, change.pairs) == (verdict, 6)
    assert change.after - change.before == pytest.approx(sum(by) / 6)


def test_paired_noise_is_that_of_students_test():
    """The p-value of scipy's test at the half width of the noise is the level."""
    [change] = compare_quality(report(sam=SPREAD), moved(SMALL_LOSS), level=0.03).changes
    after = [value + by for value, by in zip(SPREAD, SMALL_LOSS)]
    interval = stats.ttest_rel(after, SPREAD).confidence_interval(1 - 0.03)
    assert change.noise == pytest.approx((interval.high - interval.low) / 2)


def test_without_the_values_errors_are_pooled():
    """The loss that pairs show drowns in what pictures differ in; Welch's interval is scipy's."""
    before, after = report(sam=SPREAD), moved(SMALL_LOSS)
    [change] = compare_quality(without_values(before), after).changes
    assert (change.verdict, change.pairs) == ("same", 0)
    values = after["rows"][0]["each"]["psnr"]
    interval = stats.ttest_ind(values, SPREAD, equal_var=False).confidence_interval(1 - 0.01)
    assert change.noise == pytest.approx((interval.high - interval.low) / 2)
    far = without_values(moved([-30.0] * 6))
    assert compare_quality(without_values(before), far).changes[0].verdict == "worse"


def test_lower_is_better_where_a_report_or_the_metric_says_so():
    before, after = report(sam=SPREAD), moved(SMALL_LOSS)
    for content in (before, after):
        content["better"] = {"psnr": "lower"}
    assert compare_quality(before, after).changes[0].verdict == "better"
    for content in (before, after):
        del content["better"]
    assert compare_quality(before, after).changes[0].verdict == "worse"


def test_figures_without_a_spread_are_not_judged():
    before, after = report(sam=SPREAD), report(sam=SPREAD)
    for content, fid in ((before, 10.0), (after, 90.0)):
        content["definitions"]["fid-demo"] = "A distance of sets."
        content["rows"][0]["fid-demo"] = fid
    found = compare_quality(before, after)
    assert [(change.metric, change.verdict) for change in found.changes] == [
        ("psnr", "same"),
        ("fid-demo", "not judged"),
    ]
    assert not found.worse and "not judged" in describe_comparison(found)


def test_pictures_that_fail_now_are_worse():
    found = compare_quality(report(sam=SPREAD), report(sam=[*SPREAD[:-1], None]))
    assert [(change.metric, change.verdict) for change in found.changes] == [("psnr", "same"), ("failed", "worse")]
    # The mean is over the pictures that both have.
    assert found.changes[0].before == found.changes[0].after == sum(SPREAD[:-1]) / 5


def test_numbers_that_are_none_count_for_nothing():
    after = report(sam=[*SPREAD[:-1], math.nan])
    assert [change.pairs for change in compare_quality(report(sam=SPREAD), after).changes] == [5]
    after = without_values(report(sam=SPREAD))
    after["rows"][0]["psnr"] = math.nan
    assert compare_quality(report(sam=SPREAD), after).changes == []


def test_what_else_differs_is_said():
    before, after = report(sam=SPREAD, pti=SPREAD), report(sam=SPREAD)
    after["settings"], after["device"] = {"seed": 1}, "GPU"
    text = describe_comparison(compare_quality(before, after))
    assert "Only in the report: pti with 40 steps." in text and "device differs: CPU before, GPU after." in text
    assert "The setting seed differs: 0 before, 1 after." in text and text.endswith("Nothing got worse.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, "the generator differs"),
        ({"image_size": [256, 256]}, "the size of the pictures differs"),
        ({"protocol": "sam"}, r"the protocol differs \(none there, sam here\)"),
        ({"pictures": 7}, "the number of pictures differs"),
        ({"sources": {**SOURCES, "scene-3": "demo scene 9"}}, "1 of their pictures differ, for example scene-3"),
        ({"rows": [{"method": "sam", "steps": 80}]}, "sam with 40 steps there, sam with 80 steps here"),
        ({"rows": [{"method": "pti", "steps": 40}]}, "no method with the same steps in common"),
        ({"rows": [{"method": "sam"}]}, r"no report .*KeyError"),
        ({"rows": [{"method": "sam", "steps": 40, "each": {"psnr": [1.0]}}]}, "psnr has 1 values for 6 pictures"),
        ({"rows": [{"method": "sam", "steps": 40, "images": "many"}]}, "no report .*many"),
        ({"rows": 3}, "no report"),
    ],
)
def test_what_cannot_be_compared(change, message):
    with pytest.raises(InputError, match=message):
        compare_quality(report(sam=SPREAD), {**report(sam=SPREAD), **change})


@pytest.mark.parametrize(("level", "tolerance"), [(0, 0.1), (1, 0.1), (math.nan, 0.1), (0.01, -1), (0.01, math.nan)])
def test_levels_and_tolerances_out_of_range(level, tolerance):
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        compare_quality(report(sam=SPREAD), report(sam=SPREAD), level, tolerance)


def test_by_command(tmp_path, capsys):
    files = {"a": report(sam=SPREAD), "b": moved(SMALL_LOSS), "none": {"rows": 3}}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "text.json").write_text("no JSON")
    a, b, none, text = (str(tmp_path / f"{name}.json") for name in (*files, "text"))
    assert main(["bench", "compare", a, a]) == 0
    assert main(["bench", "compare", a, b, "--json", str(tmp_path / "found.json")]) == 1
    assert "Worse: psnr of sam with 40 steps." in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["worse"] == 1
    assert main(["bench", "compare", a, b, "--tolerance", "0.1"]) == 0
    for bad in (none, text, str(tmp_path / "absent.json")):
        assert main(["bench", "compare", a, bad]) == 2
        assert "is no report of saminv bench quality" in capsys.readouterr().err


def test_the_committed_figures_are_what_make_bench_measures():
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    words = re.search(r"^BENCH := (.*)$", makefile, re.M)[1].split()
    asked = _parser().parse_args(["bench", "quality", *words])
    content = json.loads((ROOT / re.search(r"^FIGURES := (.*)$", makefile, re.M)[1]).read_text())
    assert [(row["method"], [row["steps"]]) for row in content["rows"]] == [
        (name, asked.steps) for name in asked.methods
    ]
    assert [str(content["pictures"])] == asked.images and len(content["sources"]) == content["pictures"]
    columns = {column for name in asked.edits for column in EDITS[name]}
    assert columns < set(content["definitions"]) and all(columns < set(row["each"]) for row in content["rows"])
    assert content["fingerprint"] == load_generator("demo").fingerprint, "Call make bench, then make bench-renew."
    assert not compare_quality(content, content).worse
