"""The ``saminv`` command: one sub-command for each public function.

Results go to the standard output, messages, warnings and progress to the standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import images
from ._api import edit, invert
from ._errors import InputError, SaminvError, SolutionError, Status
from ._files import ensure_folder
from ._open import load_generator
from ._recipe import DEFAULT_STEPS, DEFAULT_TAU, FAR_TAU
from ._version import __version__
from .demo.report import SEED, run_demo
from .editing import direction_names
from .editing._summary import Row, summarise, table
from .editing.sheet import edit_caption
from .generators import GENERATORS, AbstractGenerator
from .metrics import METRICS
from .segment import SEGMENTERS, GivenInvertibility, GivenRegions
from .solution import FORMAT, Solution, _read
from .spaces import available_spaces

OUTPUTS = (".safetensors", ".png", "-sheet.png", "-pasted.png")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PER_IMAGE = ("names", "crops", "segment_names")
"""Parts of a solution's provenance that are no settings."""
INTERRUPTED = 130
_EXIT_CODES = """exit codes:
  0    done
  1    something failed: the output place, missing weights or packages
  2    bad input: a wrong option, an unreadable picture or file
  130  interrupted by Ctrl-C; of an inversion, what there is has been saved
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (of the process where None) and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with _one_line_warnings():
            return arguments.run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not try to flush to it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        if not isinstance(error, SaminvError):
            return _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1)
        return _fail(str(error), 2 if isinstance(error, ValueError) else 1)


def _fail(message: str, code: int) -> int:
    print(f"saminv: {_line(message)}", file=sys.stderr)
    return code


def _line(message: object) -> str:
    return " ".join(str(message).split())


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print each warning once, as one line without its place in the source."""

    def show(message: Any, *_: Any) -> None:
        print(f"saminv: warning: {_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _demo(arguments: argparse.Namespace) -> int:
    result = run_demo(
        invert,
        arguments.out,
        steps=arguments.steps,
        seed=arguments.scene,
        device=arguments.device,
        progress=_on_terminal(),
    )
    print(result.text)
    print(f"\n{arguments.out / 'sheet.png'} shows it; the figures are in {arguments.out / 'report.json'}.")
    return INTERRUPTED if result.interrupted else 0


def _invert(arguments: argparse.Namespace) -> int:
    folder = ensure_folder(arguments.out)
    stems = _stems(arguments.image, folder)
    _check_pictures(arguments.image)
    settings = _settings(arguments)
    rows: list[Row] = []
    begin, interrupted = time.perf_counter(), False
    for start in range(0, len(stems), arguments.batch):
        part = slice(start, start + arguments.batch)
        solution = invert(arguments.image[part], **_part(settings, part, len(stems)))
        interrupted = Status.INTERRUPTED in solution.statuses
        for index, stem in enumerate(stems[part]):
            solution.provenance["names"][index] = stem
            picture = arguments.image[start + index] if arguments.paste_back else None
            rows.append(_write(solution[index], folder, stem, picture))
        if interrupted:
            break
    if arguments.json:
        seconds = round(time.perf_counter() - begin, 3)
        kept = {key: value for key, value in solution.provenance.items() if key not in PER_IMAGE}
        report = {"saminv": __version__, "seconds": seconds, "interrupted": interrupted, "settings": kept}
        print(json.dumps({**report, "images": rows}, indent=2, allow_nan=False))
    else:
        print(table(rows))
    return INTERRUPTED if interrupted else 0


def _stems(sources: Sequence[Path], folder: Path) -> list[str]:
    """Names of the results without suffix: those of the pictures, made different where results would collide."""
    inputs, taken, stems = {source.resolve() for source in sources}, set[str](), []
    for source in sources:
        stem, count = source.stem, 1
        while taken & {stem + suffix for suffix in OUTPUTS}:
            count += 1
            stem = f"{source.stem}-{count}"
        files = {stem + suffix for suffix in OUTPUTS}
        overwritten = inputs & {(folder / file).resolve() for file in files}
        if overwritten:
            raise InputError(f"The results would overwrite {overwritten.pop()}; choose another folder by --out.")
        taken |= files
        stems.append(stem)
    return stems


def _check_pictures(sources: Sequence[Path]) -> None:
    """Read every picture once, so that a bad one is named before any work."""
    with warnings.catch_warnings():
        # The inversion reads them again and says it then.
        warnings.simplefilter("ignore")
        for source in sources:
            images.load(source)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of :func:`saminv.invert`."""
    generator = load_generator(arguments.generator)
    spaces = _spaces(arguments.spaces)
    if arguments.segmenter == "labels":
        raise InputError("--segmenter labels needs the label image: name its file instead, for example labels.png.")
    return {
        "spaces": spaces,
        "tau": arguments.tau,
        # A bundled generator is told by its name, which the solution then states.
        "generator": arguments.generator if arguments.generator in GENERATORS else generator,
        "label": _label(arguments.label),
        "segmenter": arguments.segmenter,
        "invertibility": _invertibility(arguments.invertibility, spaces or generator.default_spaces),
        "metric": arguments.metric,
        "encoder": _encoder(arguments.encoder, generator, len(arguments.image)),
        "steps": arguments.steps,
        "rate": arguments.rate,
        "formulation": arguments.formulation,
        "tap_point": arguments.tap_point,
        "skip": arguments.skip,
        "noise": arguments.noise,
        "fit_mode": arguments.fit,
        "device": arguments.device,
        "seed": arguments.seed,
        "progress": _on_terminal(),
    }


def _spaces(words: Sequence[str] | None) -> list[str] | None:
    """Names of spaces, separated by blanks or commas."""
    return None if words is None else [name for word in words for name in word.split(",") if name]


def _label(text: str | None) -> int | Tensor | None:
    if text is None:
        return None
    try:
        return torch.tensor([float(part) for part in text.split(",")]) if "," in text else int(text)
    except ValueError as error:
        raise InputError(f"--label is {text!r}; it is a class number, or a vector such as 0,0,1,0.") from error


def _invertibility(text: str, spaces: Sequence[str]) -> str | GivenInvertibility | GivenRegions:
    if text == "measured":
        return text
    return GivenInvertibility(text) if Path(text).suffix.lower() == ".npz" else GivenRegions(text, spaces)


def _encoder(text: str, generator: AbstractGenerator, count: int) -> str | Solution:
    if Path(text).suffix != ".safetensors":
        return text
    start = Solution.load(text, generator=generator)
    if len(start) != count:
        raise InputError(f"--encoder {text} has {len(start)} images, but there are {count} pictures; it needs as many.")
    return start


def _part(settings: dict[str, Any], part: slice, count: int) -> dict[str, Any]:
    """The settings for some of the pictures."""
    start = settings["encoder"]
    whole = part.start == 0 and part.stop >= count
    return settings if whole or not isinstance(start, Solution) else {**settings, "encoder": start[part]}


def _write(solution: Solution, folder: Path, stem: str, picture: Path | None) -> Row:
    """Write the files of one image and return its row of the report."""
    files = {"solution": solution.save(folder / f"{stem}.safetensors")}
    shown = torch.nan_to_num(solution.image)
    files["reconstruction"] = images.save(folder / f"{stem}.png", shown)
    files["sheet"] = images.save(folder / f"{stem}-sheet.png", solution.sheet())
    if picture is not None:
        files["pasted"] = images.save(folder / f"{stem}-pasted.png", _pasted(picture, shown, solution))
    [row] = summarise(solution.provenance, solution.stats, solution.status)
    return {**row, "files": {kind: str(path) for kind, path in files.items()}}


def _pasted(picture: Path, image: Tensor, solution: Solution) -> Tensor:
    """The photograph with an image of its solution in its place."""
    crops = solution.provenance.get("crops")
    if not crops:
        raise InputError("The solution does not say how its picture was cropped, so nothing can be pasted back.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = images.load(picture)
    return images.paste_back(original, image.detach().cpu(), images.Crop.from_dict(crops[0]))


def _edit(arguments: argparse.Namespace) -> int:
    solution = Solution.load(arguments.solution, generator=arguments.generator)
    if arguments.paste_back is not None and len(solution) != 1:
        raise InputError(f"--paste-back needs a solution of one image; {arguments.solution} has {len(solution)}.")
    targets = _edit_targets(arguments, solution)
    for strength, files in zip(arguments.strength, targets):
        edited = torch.nan_to_num(edit(solution, arguments.direction, strength))
        for index, file in enumerate(files):
            image = edited[index : index + 1]
            images.save(file, image if arguments.paste_back is None else _pasted(arguments.paste_back, image, solution))
            print(file)
    return 0


def _edit_targets(arguments: argparse.Namespace, solution: Solution) -> list[list[Path]]:
    """Files of the edited pictures, a list per strength; their folder is made and checked."""
    out = arguments.solution.parent if arguments.out is None else arguments.out
    if out.suffix.lower() in PICTURES:
        if len(arguments.strength) * len(solution) > 1:
            count = len(arguments.strength) * len(solution)
            raise InputError(f"--out {out} is one file, but there are {count} pictures; name a folder.")
        ensure_folder(out.parent)
        return [[out]]
    folder, stem = ensure_folder(out), arguments.solution.stem
    stems = [stem] if len(solution) == 1 else [f"{stem}-{index}" for index in range(len(solution))]
    captions = ["".join(edit_caption(arguments.direction, strength)) for strength in arguments.strength]
    return [[folder / f"{stem}-{caption}.png" for stem in stems] for caption in captions]


def _info(arguments: argparse.Namespace) -> int:
    if arguments.file is None:
        facts = {**_versions(), **_generator_facts(load_generator(arguments.generator))}
    else:
        facts = _solution_facts(arguments.file)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    rows = facts.pop("images", None)
    width = max(len(key) for key in facts) + 2
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        print(textwrap.fill(text, 100, initial_indent=key.ljust(width), subsequent_indent=" " * width))
    if rows is not None:
        print("\n" + table(rows))
    return 0


def _versions() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "saminv": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": [f"cpu ({torch.get_num_threads()} threads)", *[f"cuda:{i} ({name})" for i, name in enumerate(gpus)]],
    }


def _generator_facts(generator: AbstractGenerator) -> dict[str, Any]:
    """What a generator is and offers."""
    sites = [f"{name}:{'x'.join(map(str, site.shape))}" for name, site in generator.sites.items()]
    return {
        "generator": type(generator).__name__,
        "image size": "{} x {}".format(*reversed(generator.image_size)),
        "styles": f"{generator.num_styles} x {generator.style_dim}",
        "classes": generator.label_dim,
        "fingerprint": generator.fingerprint,
        "sites": sites,
        "spaces": available_spaces(generator),
        "default spaces": list(generator.default_spaces),
        "directions": direction_names(generator) or ["none"],
    }


def _solution_facts(path: Path) -> dict[str, Any]:
    """What a solution file holds; its generator is not needed for it."""
    header, arrays = _read(path)
    try:
        provenance = json.loads(header["provenance"])
        stats = {name[6:]: value for name, value in arrays.items() if name.startswith("stats/")}
        height, width = arrays["image"].shape[-2:]
        return {
            "format": FORMAT,
            "saminv": provenance.get("saminv"),
            "generator": provenance.get("generator") or "not a bundled one",
            "fingerprint": provenance.get("fingerprint"),
            "image size": f"{width} x {height}",
            "spaces": json.loads(header["spaces"]),
            **{key: provenance.get(key) for key in ("tau", "metric", "invertibility", "steps", "seed", "label")},
            "images": summarise(provenance, stats, arrays["status"]),
        }
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise SolutionError(f"{path} is damaged: {error!r}. Restore it from a copy or invert again.") from error


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saminv",
        description="GAN inversion and editing: each segment goes to the most editable latent space that fits it.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saminv {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_invert(commands)
    _add_edit(commands)
    _add_info(commands)
    return parser


def _command(commands: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=description.split(".")[0].lower(),
        description=description,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Any) -> None:
    add = _command(
        commands,
        "demo",
        _demo,
        "Invert and edit a scene.\n\nWrites scene.png, sheet.png, solution.safetensors and report.json: one scene\n"
        "inverted by SAM, in W+ and in F10, with the same edits of each.",
    ).add_argument
    add("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="folder of the results (demo-out)")
    add("--steps", type=int, default=DEFAULT_STEPS, help=f"of each inversion ({DEFAULT_STEPS})")
    add("--scene", type=int, default=SEED, metavar="SEED", help=f"seed of the scene ({SEED})")
    add("--device", default="auto", help="auto, cpu or cuda")


def _add_invert(commands: Any) -> None:
    add = _command(
        commands,
        "invert",
        _invert,
        "Invert pictures.\n\nFor each picture NAME, writes NAME.png (the reconstruction), NAME-sheet.png and\n"
        "NAME.safetensors (the solution). All pictures are read first: if one cannot be,\nnothing is inverted.",
    ).add_argument
    add("image", type=Path, nargs="+", metavar="IMAGE", help="picture file")
    add("--spaces", nargs="+", metavar="SPACE", help="such as W+ F4 F6; the generator's own choice if not given")
    far = f"({DEFAULT_TAU}, or {FAR_TAU} for pictures far from the domain)"
    add("--tau", type=float, help=f"largest error of a more editable space {far}")
    add("--generator", default="demo", metavar="G", help=f"{' or '.join(GENERATORS)}, or a .safetensors file")
    add("--steps", type=int, default=DEFAULT_STEPS, help=f"steps in all; 0 writes the start ({DEFAULT_STEPS})")
    add("--out", type=Path, default=Path("saminv-out"), metavar="DIR", help="folder of the results (saminv-out)")
    add("--json", action="store_true", help="print a JSON report and nothing else on the standard output")
    add(
        "--segmenter",
        default="auto",
        metavar="S",
        help=f"auto, {_known(SEGMENTERS, 'labels')} or the file of a label image",
    )
    add(
        "--invertibility",
        default="measured",
        metavar="I",
        help="measured, an .npz file of error maps named after spaces, or a label image whose values count along "
        "--spaces from 0",
    )
    add(
        "--metric", default="auto", metavar="M", help=f"auto, {_known(METRICS, 'psnr', 'ssim')}: of the loss and of tau"
    )
    add("--encoder", default="auto", metavar="E", help="start: auto, nearest, mean, or a solution file")
    add("--label", metavar="L", help="class number, or vector such as 0,0,1, of a conditional generator")
    add("--fit", default="auto", choices=("auto", "crop", "letterbox"), help="how pictures of another shape are fitted")
    add("--paste-back", action="store_true", help="also write NAME-pasted.png, the result within the whole picture")
    add("--rate", type=float, default=0.1, help="learning rate (0.1)")
    add("--formulation", default="paper", choices=("paper", "published"), help="of masks and regularisers")
    add("--tap-point", default="layer", choices=("layer", "block"), help="where feature deltas act")
    add("--skip", default="blend", choices=("blend", "published"), help="what an edit freezes")
    add("--noise", default="const", choices=("const", "random", "none"), help="layer noise")
    add("--batch", type=_positive, default=8, metavar="N", help="pictures inverted together (8)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--seed", type=int, default=0, help="of everything random (0)")


def _add_edit(commands: Any) -> None:
    add = _command(
        commands,
        "edit",
        _edit,
        "Edit a solution.\n\nWrites one picture for each strength and prints the files' names.",
    ).add_argument
    add("solution", type=Path, metavar="SOLUTION", help="file that invert has written")
    add("--direction", required=True, metavar="D", help="name (see saminv info), or a .npy, .npz or .safetensors file")
    add("--strength", type=float, nargs="+", default=[1.0], metavar="S", help="multiples of the direction (1)")
    add("--out", type=Path, metavar="PATH", help="file of a single picture, or folder (the folder of SOLUTION)")
    add("--generator", metavar="G", help="name or .safetensors file; the one that the solution names if not given")
    add("--paste-back", type=Path, metavar="PHOTO", help="put the result back into the photograph it came from")


def _add_info(commands: Any) -> None:
    add = _command(
        commands,
        "info",
        _info,
        "Describe the installation, a generator or a solution.\n\nWithout a file: versions, devices, and what the "
        "generator offers.",
    ).add_argument
    add("file", type=Path, nargs="?", metavar="FILE", help="solution to describe")
    add("--generator", default="demo", metavar="G", help="name or .safetensors file (demo)")
    add("--json", action="store_true", help="print JSON")


def _known(registry: Any, *without: str) -> str:
    return ", ".join(name for name in registry if name not in without)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
