"""Reading any checkpoint: what it is, its settings, its arrays; and from there a generator.

Nothing in a file is executed: see ``_pickle.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .._errors import CheckpointError
from ..generators import AbstractGenerator
from ._arrays import StoredArray
from ._builders import build, notes_of
from ._contents import Contents, read_contents, read_json
from ._forms import Form, bare_state, genforce, nvidia_pytorch, nvidia_tensorflow, own_file, recognise, rosinality
from ._found import Checkpoint
from ._other_forms import directions, feature_style, padinv, psp_family, sam_invertibility, sam_pieces
from ._told import told
from ._trees import describe, gather, table_of
from .discriminators import TRAINING, find_discriminator, our_discriminator

FORMS: tuple[Form, ...] = (
    own_file,
    nvidia_pytorch,
    nvidia_tensorflow,
    sam_invertibility,
    psp_family,
    padinv,
    feature_style,
    genforce,
    rosinality,
    bare_state,
    sam_pieces,
    directions,
)
"""Published forms, the more telling ones first."""
SUPPORTED = (
    "Supported are NVIDIA's PyTorch and TensorFlow pickles of StyleGAN1, 2 and 3, checkpoints of rosinality, GenForce, "
    "Hammer, PadInv, pSp, e4e, ReStyle and FeatureStyleEncoder, folders of BigGAN-deep, SAM invertibility networks, "
    "directions (.npy, .npz, .pt), and saminv's own .safetensors"
)
DISCRIMINATORS = (
    "Discriminators are read from NVIDIA's PyTorch pickles of StyleGAN2 and 3 (D), from checkpoints of rosinality (d), "
    "from what saminv convert makes of these, and from folders of saminv train-generator and train-encoder"
)
BIGGAN_CONFIG, BIGGAN_WEIGHTS = "config.json", ("pytorch_model.bin", "model.safetensors")


def read_checkpoint(path: str | Path, part: str | None = None) -> Checkpoint:
    """Read a checkpoint of any supported form; its content decides which one, not its name.

    Args:
        path: A file; for BigGAN-deep and the pieces of an invertibility network a folder.
        part: Which network of a file with several: "G", "D" or "G_ema", "encoder" or "decoder". Where None, the
            averaged generator, and of a file with an encoder the encoder.

    Returns:
        What the file holds. Its arrays are copies, in the types of the file.

    Raises:
        CheckpointError: If it is damaged, hostile or of no supported form. Says what was found and what is supported.
            Nothing in the file has been executed then.
    """
    return open_checkpoint(path, part).owned()


def read_arrays(path: str | Path) -> dict[str, Tensor]:
    """The arrays of a file that holds nothing but arrays: .npy, .npz, .safetensors or saved by torch.

    A single array without a name is called "array". All are copies.

    Raises:
        CheckpointError: If it is damaged, hostile, or holds something else.
    """
    with told(path, "is no readable array file"):
        contents = read_contents(Path(path))
        root = {"array": contents.root} if isinstance(contents.root, StoredArray) else contents.root
        table = {} if root == {} else table_of(root)
        if table is None:
            raise CheckpointError(f"it is a {contents.container} with {describe(contents.root)}")
        return {name: tensor.clone() for name, tensor in gather(table, contents.budget).items()}


def read_discriminator(path: str | Path) -> Checkpoint:
    """Read the discriminator in a file, or of a training of ours by its folder; of StyleGAN2, residual, no classes.

    Returns:
        Its arrays in float32 under the names of :class:`saminv.train.Discriminator`, and as settings the keywords of
        that.

    Raises:
        CheckpointError: If the file is damaged or hostile, or holds no discriminator, or one of another kind. Says what
            was found and what is supported. Nothing in the file has been executed then.
    """
    with told(path, supported=DISCRIMINATORS):
        place = Path(path)
        if place.is_dir():
            place = place / TRAINING
            if not place.is_file():
                raise CheckpointError(f"it is a folder without {TRAINING}, so no training of saminv that has begun")
        return our_discriminator(find_discriminator(read_contents(place), place)).owned()


def load_checkpoint_generator(path: str | Path, part: str | None = None) -> AbstractGenerator:
    """Open the generator in a checkpoint of any supported form; of an encoder, the one that belongs to it.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, or if there is no generator, its arrays are missing, unknown, of
            another shape than its settings say or not finite, or it is of a kind that cannot be represented.
    """
    return build_checkpoint(open_checkpoint(path, part), path)


def build_checkpoint(checkpoint: Checkpoint, path: str | Path) -> AbstractGenerator:
    """The generator of a checkpoint that was read from ``path``.

    Raises:
        CheckpointError: As :func:`load_checkpoint_generator`.
    """
    with told(path, supported=SUPPORTED):
        return build(checkpoint)


def checkpoint_notes(checkpoint: Checkpoint, generator: AbstractGenerator) -> tuple[str, ...]:
    """What had to be assumed about a checkpoint, and how its mean latent fits its mapping, as sentences."""
    return notes_of(checkpoint, generator)


def open_checkpoint(path: str | Path, part: str | None = None) -> Checkpoint:
    """As :func:`read_checkpoint`, but with arrays that are views of the file, for use while it stays as it is."""
    with told(path, supported=SUPPORTED):
        place = Path(path)
        return _read_folder(place) if place.is_dir() else _read_file(place, part)


def _read_file(path: Path, part: str | None) -> Checkpoint:
    contents = read_contents(path)
    for form in FORMS:
        checkpoint = form(contents, part)
        if checkpoint is not None:
            break
    else:
        raise CheckpointError(f"it is a {contents.container} with {describe(contents.root)}")
    if checkpoint.family == "biggan_deep" and checkpoint.names == "huggingface":
        return replace(checkpoint, settings=_biggan_settings(path.parent))
    return checkpoint


def _read_folder(folder: Path) -> Checkpoint:
    """A BigGAN-deep as it is published, or the pieces of an invertibility network."""
    if (folder / BIGGAN_CONFIG).is_file():
        weights = next((name for name in BIGGAN_WEIGHTS if (folder / name).is_file()), None)
        if weights is None:
            raise CheckpointError(f"it is a folder with {BIGGAN_CONFIG}, but without {' or '.join(BIGGAN_WEIGHTS)}")
        contents = read_contents(folder / weights)
        table = table_of(contents.root) or {}
        if recognise(table) != ("biggan_deep", "huggingface"):
            raise CheckpointError(f"its {weights} is no BigGAN-deep, but holds {describe(contents.root)}")
        arrays = gather(table, contents.budget)
        form = "folder of pytorch-pretrained-BigGAN"
        return Checkpoint("generator", "biggan_deep", form, "huggingface", arrays, _biggan_settings(folder))
    names = sorted(entry.name for entry in folder.iterdir())
    if any(name.endswith("_main.pt") for name in names):
        from .sam_invertibility import read_sam_invertibility

        base, heads = read_sam_invertibility(folder)
        tables = {"sd_base": base, **heads}
        arrays = {f"{part}.{name}": tensor for part, table in tables.items() for name, tensor in table.items()}
        form = "pieces of a SAM invertibility network"
        return Checkpoint("invertibility", "sam", form, "sam", arrays, {"spaces": list(heads)})
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "nothing"
    raise CheckpointError(f"it is a folder of something else: {shown}; name the file in it that is meant")


def _biggan_settings(folder: Path) -> dict[str, Any]:
    """The configuration beside the weights of a BigGAN-deep."""
    return read_json(folder / BIGGAN_CONFIG, "its configuration")


__all__ = [
    "FORMS",
    "SUPPORTED",
    "Checkpoint",
    "Contents",
    "build_checkpoint",
    "checkpoint_notes",
    "load_checkpoint_generator",
    "open_checkpoint",
    "read_arrays",
    "read_checkpoint",
    "read_discriminator",
]
