"""Mutants of checkpoints, and what reading them comes to.

Run as a script, it tries many: ``python tests/mutants.py --count 10000``.
"""

from __future__ import annotations

import argparse
import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from checkpoint_files import (
    as_tensorflow,
    nvidia_generator,
    nvidia_pickle,
    rosinality_trainer,
    saved,
    tensorflow_pickle,
)
from safetensors.torch import save as serialise
from toys import toy_stylegan2

from saminv import CheckpointError
from saminv.checkpoints import Checkpoint, build_checkpoint, read_checkpoint
from saminv.generators import AbstractGenerator, StyleGAN2, save_generator

SIZES = {"resolution": 8, "z_dim": 4, "w_dim": 4, "channel_base": 32, "channel_max": 4}
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
WORDS = (b"cos\nsystem\n", b"\x93", b"R", b"b", b"(", b"]", b"h\x00", b"\x8e" + b"\xff" * 8, b"r\xff\xff\xff\xff", b".")
SECONDS = 60


def toy() -> StyleGAN2:
    """A StyleGAN2 so small that a file of it has some kilobytes."""
    return toy_stylegan2(**SIZES)


def nvlabs_name(name: str) -> str:
    """NVIDIA's name of one of our arrays."""
    kind, *rest = name.split(".")
    if kind in ("const", "w_avg"):
        return {"const": "synthesis.b4.const", "w_avg": "mapping.w_avg"}[kind]
    if kind == "mapping_network":
        return f"mapping.fc{rest[1]}.{rest[2]}"
    layer = int(rest[0])
    part = "torgb" if kind == "torgb" else "conv0" if layer % 2 else "conv1"
    return f"synthesis.b{4 << ((layer + 1) // 2)}.{part}.{'.'.join(rest[1:])}"


def rosinality_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our arrays under the names and with the axes of rosinality."""
    found = {}
    for name, x in state.items():
        kind, *rest = name.split(".")
        if kind == "const":
            found["input.input"] = x[None]
        elif kind == "mapping_network":
            found[f"style.{int(rest[1]) + 1}.{rest[2]}"] = x
        elif kind in ("layers", "torgb"):
            layer, part = int(rest[0]), ".".join(rest[1:])
            owner = "conv1" if layer == 0 else f"convs.{layer - 1}"
            if kind == "torgb":
                owner = "to_rgb1" if layer == 0 else f"to_rgbs.{layer // 2 - 1}"
            if part == "noise_const":
                found[f"noises.noise_{layer}"] = x[None, None]
            elif part == "weight":
                found[f"{owner}.conv.weight"] = x[None]
            elif part.startswith("affine"):
                found[f"{owner}.conv.modulation.{part.split('.')[1]}"] = x
            elif part == "noise_strength":
                found[f"{owner}.noise.weight"] = x.reshape(1)
            else:
                found[f"{owner}.{'bias' if kind == 'torgb' else 'activate.bias'}"] = (
                    x.reshape(1, -1, 1, 1) if kind == "torgb" else x
                )
    return found


def seeds() -> dict[str, bytes]:
    """One small file of each form, as its own code writes it."""
    generator = toy()
    state = {name: x.detach().contiguous() for name, x in generator.state_dict().items()}
    nvlabs = {nvlabs_name(name): x for name, x in state.items()}
    kwargs = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 8, "img_channels": 3}
    kwargs |= {"mapping_kwargs": {"num_layers": 2, "lr_multiplier": 1.0}, "synthesis_kwargs": {"channel_max": 4}}
    rosinality = rosinality_state(state)
    with tempfile.TemporaryDirectory() as folder:
        own = save_generator(generator, Path(folder) / "toy.safetensors").read_bytes()
    direction = torch.linspace(-1, 1, 4 * 8).reshape(1, 4, 8)
    array, arrays = Path(tempfile.mkdtemp()) / "a.npy", Path(tempfile.mkdtemp()) / "a.npz"
    np.save(array, direction.numpy())
    np.savez_compressed(arrays, direction=direction.numpy())
    layers = {f"encoder.{name}": direction for name in ("input_layer.0.weight", "body.0.res_layer.0.weight")}
    encoder = {**layers, **{f"decoder.{name}": x for name, x in rosinality.items()}}
    table = {"sd_base": {"a": torch.ones(3)}, "W+": {"m.0.weight": torch.ones(2, 2)}}
    return {
        "NVIDIA pickle, protocol 3": nvidia_pickle(nvlabs, kwargs),
        "NVIDIA pickle, protocol 5": nvidia_pickle(nvlabs, kwargs, 5),
        "NVIDIA module saved whole": saved(nvidia_generator(nvlabs, kwargs)),
        "TensorFlow pickle": tensorflow_pickle(as_tensorflow(nvlabs), {"mapping_lrmul": 1.0}, ("G_main", "S", "M"), 2),
        "rosinality, torch archive": saved({"g_ema": rosinality, "latent_avg": state["w_avg"]}),
        "rosinality, torch stream": saved(rosinality_trainer(rosinality, size=8), zipped=False),
        "encoder": saved({"state_dict": encoder, "opts": {"encoder_type": "Encoder4Editing"}}),
        "SAM invertibility": saved(table),
        "own safetensors": own,
        "foreign safetensors": serialise(rosinality),
        "direction, npy": array.read_bytes(),
        "direction, npz": arrays.read_bytes(),
        "direction, torch archive": saved(direction),
    }


def mutated(content: bytes, other: bytes, source: random.Random) -> bytes:
    """A file with some bytes changed, removed, repeated, or exchanged for those of another one."""
    made = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
        if not made:
            break
        # Names and lengths stand at both ends; arrays, whose change is no damage, in between.
        edge = min(len(made), 4000)
        place = source.choice((source.randrange(len(made)), source.randrange(edge), -1 - source.randrange(edge)))
        place %= len(made)
        length = min(source.choice((1, 2, 4, 8, 64, 1000)), len(made) - place)
        kind = source.randrange(8)
        if kind == 0:
            made[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            made[place] = source.randrange(256)
        elif kind == 2:
            del made[place : place + length]
        elif kind == 3:
            made[place:place] = made[place : place + length]
        elif kind == 4:
            start = source.randrange(max(1, len(other) - length))
            made[place : place + length] = other[start : start + length]
        elif kind == 5:
            edge_value = struct.pack("<Q", source.choice(EDGES))[: source.choice((1, 2, 4, 8))]
            made[place : place + len(edge_value)] = edge_value
        elif kind == 6:
            made[place:place] = source.choice(WORDS)
        else:
            del made[place:]
    return bytes(made)


def outcome(path: Path, wanted: Checkpoint) -> str:
    """What reading a mutant comes to; anything but these words is a fault of the reader."""
    try:
        found = read_checkpoint(path)
        generator: AbstractGenerator | None = None
        if found.kind == "generator":
            generator = build_checkpoint(found, path)
    except CheckpointError as error:
        cause = error.__cause__
        foreseen = cause is None or isinstance(cause, CheckpointError)
        return "refused" if foreseen else f"refused by {type(cause).__name__}"
    assert found.kind in ("generator", "discriminator", "encoder", "invertibility", "directions", "solution")
    if generator is not None:
        assert all(bool(torch.isfinite(x).all()) for x in generator.state_dict().values())
    same = found.arrays.keys() == wanted.arrays.keys()
    if same and all(torch.equal(x, wanted.arrays[name]) for name, x in found.arrays.items()):
        return "loaded as it was"
    return "loaded with other values"


def try_mutants(count: int, seed: int, folder: Path) -> Iterator[tuple[str, int, str]]:
    """Read mutants of every form in turn; yields form, number and outcome of each."""
    source = random.Random(seed)
    files = seeds()
    wanted = {}
    for name, content in files.items():
        path = folder / "seed"
        path.write_bytes(content)
        wanted[name] = read_checkpoint(path)
    names = list(files)
    for number in range(count):
        name = names[number % len(names)]
        path = folder / "mutant"
        path.write_bytes(mutated(files[name], files[source.choice(names)], source))
        start = time.perf_counter()
        yield name, number, outcome(path, wanted[name])
        assert time.perf_counter() - start < SECONDS, f"mutant {number} of {name} took too long"


def main() -> None:
    """Try mutants and print how many came to what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, number, found in try_mutants(arguments.count, arguments.seed, Path(folder)):
            counts[found] += 1
            if "by" in found:
                print(f"mutant {number} of {name}: {found}")
    for found, count in counts.most_common():
        print(f"{count:8,}  {found}")


if __name__ == "__main__":
    main()
