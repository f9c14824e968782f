"""What importing the library does not do, and that everything public has a name that resolves and a docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from functools import cached_property
from types import ModuleType

import pytest

import saminv

HEAVY = (
    "lpips",
    "torchvision",
    "skimage",
    "matplotlib",
    "scipy.ndimage",
    "PIL.Image",
    "tensorflow",
    "triton",
)
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(saminv.__path__, "saminv.") if not module.name.endswith("__main__")
)


def run(code: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh() -> list[str]:
    """What a fresh interpreter has after ``import saminv``: modules, whether CUDA woke up, random state, sockets."""
    return run(
        "import sys, socket, warnings\n"
        "warnings.simplefilter('error')\n"
        "import torch\n"
        "before, state = set(sys.modules), torch.get_rng_state()\n"
        "threads, dtype = torch.get_num_threads(), torch.get_default_dtype()\n"
        "def refuse(*a, **k): raise AssertionError('the network was touched')\n"
        "socket.socket.connect = refuse\n"
        "import saminv\n"
        "print(torch.cuda.is_initialized())\n"
        "print(torch.equal(state, torch.get_rng_state()))\n"
        "print((threads, dtype) == (torch.get_num_threads(), torch.get_default_dtype()))\n"
        "print(' '.join(sorted(set(sys.modules) - before)))\n"
    ).splitlines()


def test_importing_touches_neither_cuda_nor_global_settings(fresh):
    assert fresh[:3] == ["False", "True", "True"]


@pytest.mark.parametrize("package", HEAVY)
def test_importing_leaves_heavy_packages_alone(fresh, package):
    loaded = fresh[3].split()
    assert package not in loaded
    if "." not in package:
        assert not [name for name in loaded if name.startswith(f"{package}.")]


def test_importing_reads_no_weights():
    """Neither bundled weights nor a cache is opened by an import."""
    out = run(
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import torch\n"
        "opened.clear()\n"
        "import saminv\n"
        "print([name for name in opened if name.endswith(('.safetensors', '.pth', '.pt', '.toml'))])\n"
    )
    assert out.strip() == "[]"


def test_all_names_resolve_and_are_sorted():
    assert saminv.__all__ == sorted(saminv.__all__) and len(set(saminv.__all__)) == len(saminv.__all__)
    for name in saminv.__all__:
        assert getattr(saminv, name) is not None
    public = {name for name, value in vars(saminv).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert public <= set(saminv.__all__)


@pytest.mark.parametrize("name", sorted(set(saminv.__all__) - {"__version__"}))
def test_public_names_have_docstrings(name):
    assert len((inspect.getdoc(getattr(saminv, name)) or "").strip()) > 10


def test_the_version_is_one():
    assert [part.isdigit() for part in saminv.__version__.split(".")] == [True] * 3


def test_names_that_outside_code_calls():
    assert callable(saminv.invert) and callable(saminv.load_generator) and callable(saminv.edit)
    assert callable(saminv.Solution.load) and callable(saminv.Solution.save) and callable(saminv.Solution.edit)
    assert callable(saminv.demo.sample_scenes)
    parameters = list(inspect.signature(saminv.invert).parameters.values())
    assert [p.name for p in parameters[:3]] == ["img", "spaces", "tau"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:])
    assert all(p.default is not p.empty for p in parameters[1:])


@pytest.mark.parametrize("module", MODULES)
def test_every_module_and_what_is_public_in_it_has_a_docstring(module):
    loaded = importlib.import_module(module)
    assert (loaded.__doc__ or "").strip(), f"{module} has no docstring"
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.__all__ names {name}, which is not there"
    silent = []
    for name, thing in vars(loaded).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module:
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            silent += [f"{module}.{name}"] if not own_doc(thing) else []
        if inspect.isclass(thing) and "._" not in module:
            silent += [f"{module}.{name}.{member}" for member in silent_members(thing)]
    assert not silent, f"without docstring: {', '.join(silent)}"


def own_doc(thing) -> str:
    """The docstring that was written; dataclasses make up one that repeats their signature."""
    text = (thing.__doc__ or "").strip()
    return "" if text.startswith(f"{thing.__name__}(") else text


def silent_members(owner: type) -> list[str]:
    """Public methods and properties that are new in a class and say nothing; overridden ones inherit their words."""
    found = []
    for name, member in vars(owner).items():
        function = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(member, cached_property)):
            continue
        inherited = any(name in vars(base) for base in owner.__mro__[1:])
        if not inherited and not (function.__doc__ or "").strip():
            found.append(name)
    return found
