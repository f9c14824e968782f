"""The documentation runs, its links lead somewhere, and what it names exists."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import runpy
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import saminv
from saminv import images
from saminv.cli import _parser
from saminv.encoders import ARCHITECTURES, ENCODERS
from saminv.generators import GENERATORS
from saminv.generators._base import EIGENVALUE_FLOOR, STATISTICS_SAMPLES
from saminv.metrics import METRICS
from saminv.optim.objective import PAPER_WEIGHTS, PUBLISHED_WEIGHTS
from saminv.segment import SEGMENTERS
from saminv.spaces import SPACES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
)
STEPS = 2
PENALTIES = ("prior", "deviation", "feature")

# Folders of one machine and notes to oneself have no place in what users read.
FORBIDDEN = re.compile(r"(?<![\w.])/(work|root|tmp|home|farm)\b|\bissue \d|\b(TODO|FIXME|XXX)\b", re.I)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Pictures below an empty place for tables: the command that writes the tables draws them too.
PENDING = re.compile(r"<!-- begin: (\w+) -->\s*<!-- end: \1 -->(?:\s*!\[[^]]*\]\([^)]*\))+")
NAMED_FILE = re.compile(r"`((?:saminv|docs|tests|benchmarks|examples)/[\w./-]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """Line number and text of the code blocks in some languages."""
    text = page.read_text()
    return [(text[: m.start()].count("\n") + 2, m[2]) for m in BLOCK.finditer(text) if m[1] in languages]


def commands(page: Path) -> list[str]:
    """Command lines of the console blocks."""
    return [line for _, block in blocks(page, "console") for line in block.splitlines() if line.strip()]


@pytest.fixture
def few_steps(monkeypatch):
    """Inversions take few steps from few samples, whatever a page asks for; its plug-ins are forgotten after it."""
    real = saminv.solve

    def short(problem, solver, y0=None, *, max_steps=300, **more):
        return real(problem, solver, y0, max_steps=min(max_steps, STEPS), **more)

    for owner in ("saminv", "saminv._recipe", "saminv.optim"):
        monkeypatch.setattr(f"{owner}.solve", short)
    few_samples = functools.partial(saminv._recipe.nearest_styles, samples=12)
    monkeypatch.setattr("saminv._recipe.nearest_styles", few_samples)
    for registry in (ARCHITECTURES, ENCODERS, GENERATORS, METRICS, SEGMENTERS, SPACES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the pictures that the pages name."""
    scene = saminv.demo.sample_scenes(1, seed=11, size=160)
    for name in ("car.jpg", "scene.png"):
        images.save(tmp_path / name, scene.images)
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNNABLE = [page for page in PAGES if blocks(page, "python")]


def test_there_are_pages_to_run():
    assert {"README.md", "docs/guide.md", "docs/spaces.md", "docs/equations.md"} <= {name_of(p) for p in RUNNABLE}


@pytest.mark.filterwarnings("ignore:.*looks far from what the generator makes")
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_python_blocks_run_in_order(page, folder, few_steps):
    namespace: dict = {"__name__": "page"}
    random_state = torch.get_rng_state()
    for line, block in blocks(page, "python"):
        # Padded with empty lines, so that a traceback shows the line of the page.
        code = compile("\n" * (line - 1) + block, str(page), "exec", dont_inherit=True)
        try:
            exec(code, namespace)
        except Exception as error:
            raise AssertionError(f"{name_of(page)}, block at line {line}: {type(error).__name__}: {error}") from error
    torch.set_rng_state(random_state)


def anchor(heading: str) -> str:
    """Anchor that a heading gets."""
    plain = re.sub(r"[`*\\]", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = BLOCK.sub("", page.read_text())
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(PENDING.sub("", BLOCK.sub("", page.read_text()))):
        if re.match(r"https?://", target):
            continue
        path, _, fragment = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not fragment or fragment in anchors(file), f"{name_of(page)} links to {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page):
    for named in NAMED_FILE.findall(page.read_text()):
        assert (ROOT / named).exists(), f"{name_of(page)} names {named}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_of_the_workplace_is_mentioned(page):
    found = FORBIDDEN.search(page.read_text())
    assert not found, f"{name_of(page)} says {found[0]!r}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    """`saminv` lines parse, `make` targets and scripts exist; no other program is named."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for line in commands(page):
        words = shlex.split(line, comments=True)
        program, *rest = words
        if program == "make":
            assert set(rest) <= targets, f"{name_of(page)}: no such target in {line!r}"
        elif program == "saminv":
            parse_command(page, line, rest)
        elif program == "python":
            script = ROOT / rest[0]
            module = rest[:1] == ["-m"] and importlib.util.find_spec(rest[1])
            assert module or script.is_file(), f"{name_of(page)}: no such script in {line!r}"
        else:
            assert words[:2] == ["pip", "install"], f"{name_of(page)}: unknown program in {line!r}"


def parse_command(page: Path, line: str, rest: list[str]) -> None:
    try:
        _parser().parse_args(rest)
    except SystemExit as exit:
        raise AssertionError(f"{name_of(page)}: {line!r} is not understood by the command") from exit


def test_extras_that_are_named_exist():
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    known = set(setup["options.extras_require"])
    for page in PAGES:
        for extras in re.findall(r"(?:saminv|\.)\[(\w+(?:,\w+)*)\]", page.read_text()):
            assert set(extras.split(",")) <= known, f"{name_of(page)} names the extras {extras}"


def test_options_table_is_that_of_invert():
    guide = (ROOT / "docs" / "guide.md").read_text()
    section = guide.split("## All options of invert")[1].split("\n## ")[0]
    table = {name: cell.strip() for name, cell in re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.M)}
    parameters = inspect.signature(saminv.invert).parameters
    assert list(table) == list(parameters)
    for name, parameter in parameters.items():
        expected = "" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        assert table[name] == expected, f"the default of {name} is {expected}, the guide says {table[name]}"


def plain(number: float) -> str:
    """A number as the pages write it: 1e-3, 5."""
    return f"{number:g}" if number >= 1 else f"{number:.0e}".replace("e-0", "e-")


def test_weights_in_the_equations_are_those_of_the_objective():
    page = (ROOT / "docs" / "equations.md").read_text()
    rows = re.findall(r"^\| weights?(?: of the two terms)? \| (.*?) \| (.*?) \|$", page, re.M)
    fits = re.findall(r"^\| weights of `l2` and `perceptual` \| (.*?) \| (.*?) \|$", page, re.M)
    assert fits == [tuple(f"{w['l2']:g} and {w['perceptual']:g}" for w in (PAPER_WEIGHTS, PUBLISHED_WEIGHTS))]
    both = [[plain(weights[name]) for weights in (PAPER_WEIGHTS, PUBLISHED_WEIGHTS)] for name in PENALTIES]
    prior, deviation, feature = both
    assert rows == [tuple(map(" and ".join, zip(prior, deviation))), tuple(feature)]
    assert (
        f"from {STATISTICS_SAMPLES:,} samples" in page
        and f"a floor of {plain(EIGENVALUE_FLOOR)} mean variances" in page
    )


def test_status_table_is_complete():
    guide = (ROOT / "docs" / "guide.md").read_text()
    rows = dict(re.findall(r"^\| (\d) \| `([A-Z_]+)` \|", guide, re.M))
    assert rows == {str(int(status)): status.name for status in saminv.Status}


def test_segmenters_and_metrics_are_documented():
    guide = (ROOT / "docs" / "guide.md").read_text()
    for name in SEGMENTERS:
        assert name == "labels" or f'`"{name}"`' in guide, f"the segmenter {name} is not in the guide"
    for name in METRICS:
        assert re.search(f'`"?{name}"?`', guide), f"the metric {name} is not in the guide"


def tree_of(text: str) -> set[str]:
    """Paths in the drawing of docs/architecture.md."""
    block = text.split("## The tree")[1].split("```text\n")[1].split("```")[0]
    found, parents = set(), []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], line.split()[0]]
        found.add("".join(parents))
    return found


def test_architecture_draws_the_tree_as_it_is():
    drawn = tree_of((ROOT / "docs" / "architecture.md").read_text())
    missing = [path for path in sorted(drawn) if not (ROOT / path).exists()]
    assert not missing, f"drawn but not there: {missing}"
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "saminv").rglob("*.py")}
    # Private modules of a folder, elementary operations and weights are drawn as their folder.
    inner = re.compile(r"saminv/(ops|weights)/|saminv/\w+/_(?!base)\w+\.py|saminv/\w+/__init__\.py")
    absent = sorted(path for path in files if not inner.match(path) and path not in drawn)
    assert not absent, f"there but not drawn: {absent}"


def test_layers_in_the_page_are_those_that_are_checked():
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    rows = setup["importlinter:contract:layers"]["layers"].split("\n")
    checked = [set(re.findall(r"\w+", row)) for row in rows if row.strip()]
    page = (ROOT / "docs" / "architecture.md").read_text().split("## Who may import whom")[1].split("```text\n")[1]
    # Remarks stand far to the right of the names.
    drawn = [set(re.findall(r"\w+", re.split(r"\s{9,}", row)[0])) for row in page.split("```")[0].splitlines()]
    assert drawn == checked


@pytest.mark.parametrize("page", ["quality.md", "performance.md"])
def test_places_for_tables_are_paired(page):
    text = (ROOT / "docs" / page).read_text()
    marks = re.findall(r"<!-- (begin|end): ([\w-]+) -->", text)
    names = [name for _, name in marks]
    assert [kind for kind, _ in marks] == ["begin", "end"] * (len(marks) // 2)
    assert names[::2] == names[1::2] and len(set(names)) == len(names) // 2


def test_citation_has_the_version_and_the_three_papers():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"version: {saminv.__version__}\n" in text
    for paper in ("2206.08357", "2203.11105", "2202.02183"):
        assert f"arXiv:{paper}" in text
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_pictures_script(tmp_path, capsys):
    script = str(ROOT / "docs" / "make_pictures.py")
    main = runpy.run_path(script)["main"]
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "--only" in capsys.readouterr().out
    main(["--only", "scenes", "strangers", "--size", "16", "--columns", "2", "--out", str(tmp_path)])
    assert images.load(tmp_path / "strangers.jpg").size == (2 * 16 + 2, 2 * 16 + 2)
