"""Encoders that others have published: their array names and settings, and their counterparts here.

An adapter is a function from (arrays, settings) to (architecture, configuration, arrays by our names). Reading the file
is apart from it (:func:`read_published`), and executes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .._errors import CheckpointError
from ..checkpoints import read_values
from ..weights.published import IGNORED, plain_state, read_state
from ._base import AbstractEncoder, EncoderConfig
from ._file import build_encoder
from ._trunk import IR_BLOCKS, RESNET_BLOCKS
from .feature_style import POOLED, USUAL, FeatureStyleConfig
from .gradual import ITERATIONS, GradualConfig
from .padinv import PadInvConfig

Arrays = Mapping[str, Tensor]
Layout = tuple[str, EncoderConfig, dict[str, Tensor]]

MEAN = "latent_avg"
"""Name under which the mean styles of a file stand among the arrays."""
DIRECT = ("GradualStyleEncoder", "ResNetGradualStyleEncoder", "BackboneEncoder", "ResNetBackboneEncoder")
"""``encoder_type`` of pSp and of ReStyle on it: each head gives a style."""
DELTAS = ("Encoder4Editing", "ProgressiveBackboneEncoder", "ResNetProgressiveBackboneEncoder")
"""``encoder_type`` of e4e and of ReStyle on it: heads after the first give differences from its style."""
SINGLE = ("BackboneEncoderUsingLastLayerIntoW", "BackboneEncoderUsingLastLayerIntoWPlus")
"""``encoder_type`` of pSp's own baselines, whose layers are others."""
CARS = (192, 256)
"""Height and width at which the published encoders of cars look at pictures."""
LEAST = 16
"""Side of the coarsest features at 256 pixels."""


def load_published(path: str | Path, **settings: Any) -> AbstractEncoder:
    """Open a published encoder, frozen and in evaluation mode.

    Args:
        path: A pSp, e4e or ReStyle .pt, a PadInv .pth, or a Feature-Style .pth or .pth.tar file.
        settings: Of the file's own, to be added or changed, such as ``encoder_type="Encoder4Editing"``.

    Raises:
        CheckpointError: If the file is missing, damaged, holds code, or is no such encoder; the message says what is
            missing.
    """
    arrays, stated = read_published(Path(path))
    return encoder_from_published(arrays, {**stated, **settings}, str(path))


def encoder_from_published(arrays: Arrays, settings: Mapping[str, Any], what: str) -> AbstractEncoder:
    """Build a frozen encoder from arrays under published names; ``what`` names their file in errors.

    Args:
        arrays: Of the encoder, without a prefix; ``latent_avg`` among them is the mean that codes are added to.
        settings: Of the file: ``encoder_type``, ``stylegan_size`` or ``output_size``, ``dataset_type``,
            ``n_iters_per_batch``; and ``image_size``, ``layer`` and ``stride`` where they are not the usual ones. Only
            ``encoder_type`` is needed, and by pSp, e4e and ReStyle alone.

    Raises:
        CheckpointError: If the arrays or the settings are of no published encoder, or an array lacks or does not fit.
    """
    return build_encoder(*published_layout(arrays, settings, what), what)


def published_layout(arrays: Arrays, settings: Mapping[str, Any], what: str) -> Layout:
    """Architecture, configuration and arrays by our names of a published encoder.

    Raises:
        CheckpointError: If the arrays or the settings are of no published encoder.
    """
    named = {name: x for name, x in arrays.items() if not IGNORED.search(name)}
    for landmark, adapter in _ADAPTERS.items():
        if any(name.startswith(landmark) for name in named):
            try:
                return adapter(named, settings)
            except CheckpointError as error:
                raise CheckpointError(f"{what}: {error}") from error
            except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise CheckpointError(f"{what} is damaged, or no whole encoder: {reason}") from error
    shown = ", ".join(sorted(named)[:4]) or "nothing"
    raise CheckpointError(
        f"{what} holds no encoder that is known here (it has {shown}, ...). Known are those of pSp, e4e, ReStyle, "
        "PadInv and Feature-Style."
    )


def gradual_layout(arrays: Arrays, settings: Mapping[str, Any]) -> Layout:
    """pSp, e4e or ReStyle; on IR-SE-50 or, where there is no ``input_layer``, on ResNet-34."""
    kind = settings.get("encoder_type")
    if kind not in (*DIRECT, *DELTAS):
        known = ", ".join((*DIRECT, *DELTAS))
        if kind in SINGLE:
            raise CheckpointError(
                f"An encoder of type {kind} reads all styles off one vector; those that load: {known}."
            )
        raise CheckpointError(
            f"The arrays do not tell pSp's encoders from e4e's, and the settings say encoder_type={kind!r}. Known: "
            f"{known}; pass encoder_type=... if the file does not say it."
        )
    resnet = "conv1.weight" in arrays
    blocks = RESNET_BLOCKS if resnet else IR_BLOCKS
    places = [(stage, k) for stage, count in enumerate(blocks) for k in range(count)]
    stem = ("conv1", "bn1", "relu") if resnet else ("input_layer.0", "input_layer.1", "input_layer.2")
    rules: list[Rule] = [(re.escape(name), f"branch.trunk.stem.{k}") for k, name in enumerate(stem)]
    rules += [(rf"body\.{n}", f"branch.trunk.stages.{s}.{k}") for n, (s, k) in enumerate(places)]
    rules += [(r"latlayer1", "branch.pyramid.laterals.1"), (r"latlayer2", "branch.pyramid.laterals.0")]
    rules += [(r"styles\.(\d+)", r"branch.heads.\1")]
    starts = [sum(blocks[:stage]) for stage in range(4)]
    inputs = arrays[f"{stem[0]}.weight"].shape[1]
    if inputs not in (3, 6):
        raise ValueError(f"its pictures have {inputs} channels; encoders of sketches and label maps cannot be used")
    per_level, side = _levels(arrays, "styles")
    reduction = {} if resnet else {"reduction": _reduction(arrays, "body.0")}
    fields = _common(arrays, settings, "styles.0.linear.weight", len(_numbered(arrays, "styles")), side) | reduction
    config = GradualConfig(
        **fields,
        deltas=kind in DELTAS,
        iterations=int(settings.get("n_iters_per_batch", ITERATIONS)) if inputs == 6 else 0,
        per_level=per_level,
        pyramid="latlayer1.weight" in arrays,
        trunk="resnet" if resnet else "ir-se",
        widths=tuple(arrays[f"body.{n}.{'conv1' if resnet else 'res_layer.1'}.weight"].shape[0] for n in starts),
        blocks=blocks,
    )
    return "gradual", config, _renamed(arrays, rules, config)


def padinv_layout(arrays: Arrays, settings: Mapping[str, Any]) -> Layout:
    """PadInv's encoder."""
    stages = [_numbered(arrays, f"backbone_stages.{s}") for s in range(4)]
    heads = _numbered(arrays, "padding_modulation_heads")
    rules: list[Rule] = [
        (r"input_layer", "branch.trunk.stem"),
        (r"backbone_stages", "branch.trunk.stages"),
        (r"fpn\.lateral_layers", "branch.pyramid.laterals"),
        (r"latent_heads", "branch.heads"),
        (r"padding_extractor", "extractor"),
    ]
    rules += [(rf"padding_modulation_heads\.{k}", f"paddings.{2 * k + 1}") for k in range(len(heads))]
    widths = tuple(arrays[f"backbone_stages.{s}.0.res_layer.1.weight"].shape[0] for s in range(4))
    # Without heads there is no padding at all: the trainer's own baseline.
    paddings = (0, *range(1, 2 * len(heads), 2)) if heads else ()
    channels = [arrays[f"padding_modulation_heads.{k}.weight"].shape[0] for k in range(len(heads))]
    per_level, side = _levels(arrays, "latent_heads")
    config = PadInvConfig(
        **_common(arrays, settings, "latent_heads.0.linear.weight", len(_numbered(arrays, "latent_heads")), side),
        paddings=paddings,
        channels=(widths[3], *channels) if heads else (),
        map_side=2 ** (len(heads) + 1) + 2,
        per_level=per_level,
        widths=widths,
        blocks=tuple(map(len, stages)),
        reduction=_reduction(arrays, "backbone_stages.0.0"),
    )
    return "padinv", config, _renamed(arrays, rules, config)


def feature_style_layout(arrays: Arrays, settings: Mapping[str, Any]) -> Layout:
    """The Feature-Style encoder, whose names are ours. The stride is not in the arrays: the code is a sixteenth."""
    stages = [_numbered(arrays, f"block_{s}") for s in range(1, 5)]
    widths = tuple(arrays[f"block_{s}.0.conv1.weight"].shape[0] for s in range(1, 5))
    pooled = arrays["styles.0.weight"].shape[1]
    if pooled != sum(widths) * POOLED**2:
        raise ValueError(f"its styles are read off {pooled} numbers, not off the {sum(widths) * POOLED**2} of 3 x 3")
    config = FeatureStyleConfig(
        **_common(arrays, settings, "styles.0.weight", len(_numbered(arrays, "styles")), 256),
        layer=int(settings.get("layer", USUAL)),
        channels=arrays["content_layer.4.weight"].shape[0],
        stride=int(settings.get("stride", 2)),
        widths=widths,
        blocks=tuple(map(len, stages)),
    )
    return "feature-style", config, _renamed(arrays, [], config)


def read_published(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays of a published encoder, without their prefix and with ``latent_avg``, and its settings.

    Raises:
        CheckpointError: If the file is missing, damaged, holds code, or has no encoder in it.
    """
    if not path.is_file():
        raise CheckpointError(f"The encoder file {path} does not exist.")
    if path.suffix == ".safetensors":
        return dict(read_state(path)), {}
    content = read_values(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} is no encoder, but a {type(content).__name__}.")
    models = content.get("models")
    if isinstance(models, Mapping) and isinstance(models.get("encoder"), Mapping):
        generator = models.get("generator_smooth") or models.get("generator") or {}
        return _with_mean(plain_state(models["encoder"], str(path)), generator.get("w_avg")), {}
    if isinstance(content.get("enc_state_dict"), Mapping):
        return dict(plain_state(content["enc_state_dict"], str(path))), {}
    if isinstance(content.get("state_dict"), Mapping):
        prefix = "encoder."
        state = plain_state(content["state_dict"], str(path))
        arrays = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        if not arrays:
            raise CheckpointError(f"{path} has no arrays of an encoder; it has: {', '.join(sorted(state)[:4])}, ...")
        settings = content.get("opts")
        return _with_mean(arrays, content.get(MEAN)), dict(settings) if isinstance(settings, Mapping) else {}
    return dict(plain_state(content, str(path))), {}


def _with_mean(arrays: Mapping[str, Tensor], mean: Any) -> dict[str, Tensor]:
    return {**arrays, MEAN: mean} if isinstance(mean, Tensor) else dict(arrays)


def _common(arrays: Arrays, settings: Mapping[str, Any], last: str, count: int, side: int) -> dict[str, Any]:
    """Fields of every configuration; ``last`` is the layer whose outputs are a style."""
    resolution = settings.get("stylegan_size", settings.get("output_size"))
    cars = "cars" in str(settings.get("dataset_type", "")) and side == max(CARS)
    return {
        "num_styles": count,
        "style_dim": arrays[last].shape[0],
        "image_size": tuple(settings.get("image_size", CARS if cars else (side, side))),
        "resolution": None if resolution is None else int(resolution),
        "own_mean": MEAN in arrays,
    }


def _levels(arrays: Arrays, heads: str) -> tuple[tuple[int, ...], int]:
    """Styles of each level, the coarsest first, and the side of the pictures: a head halves until 1 is left."""
    depths = Counter(len(_numbered(arrays, f"{heads}.{k}.convs")) for k in range(len(_numbered(arrays, heads))))
    least = min(depths)
    return tuple(depths[least + level] for level in range(3)), LEAST << least


def _reduction(arrays: Arrays, block: str) -> int:
    narrow, wide = arrays[f"{block}.res_layer.5.fc1.weight"].shape[:2]
    return wide // narrow


def _numbered(arrays: Arrays, prefix: str) -> set[int]:
    """The numbers that follow a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return {int(match[1]) for name in arrays if (match := pattern.match(name))}


Rule = tuple[str, str]


def _renamed(arrays: Arrays, rules: list[Rule], config: EncoderConfig) -> dict[str, Tensor]:
    """Arrays by our names: the first rule that a name begins with applies. A mean w stands for every style."""
    compiled = [(re.compile(rf"{pattern}(?=\.)"), ours) for pattern, ours in rules]
    found = {}
    for name, tensor in arrays.items():
        if name == MEAN:
            mean = tensor.reshape(-1, tensor.shape[-1])
            fits = mean.shape[0] in (1, config.num_styles)
            found[name] = mean.expand(config.num_styles, -1) if fits else mean
            continue
        for pattern, ours in compiled:
            if match := pattern.match(name):
                name = match.expand(ours) + name[match.end() :]
                break
        found[name] = tensor
    return found


_ADAPTERS: Mapping[str, Callable[[Arrays, Mapping[str, Any]], Layout]] = {
    "content_layer.": feature_style_layout,
    "backbone_stages.": padinv_layout,
    "body.": gradual_layout,
}
"""By what the names of an architecture, and of no other one, begin with."""
