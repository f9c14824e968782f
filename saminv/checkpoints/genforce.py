"""Array names of GenForce and Hammer (which PadInv is built on), and their counterparts here: StyleGAN2 and 3.

Those of StyleGAN1 are in ``stylegan1.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .._errors import CheckpointError
from ..generators import AbstractGenerator
from ..generators.stylegan2 import StyleGAN2, StyleGAN2Config
from ._state import build_stylegan2
from .stylegan3 import stylegan3_from_nvlabs

_PATTERNS = (
    (re.compile(r"mapping\.dense(\d+)\.(weight|bias)"), r"mapping_network.layers.\1.\2"),
    (re.compile(r"synthesis\.layer(\d+)\.style\.(weight|bias)"), r"layers.\1.affine.\2"),
    (re.compile(r"synthesis\.layer(\d+)\.noise"), r"layers.\1.noise_const"),
    (re.compile(r"synthesis\.layer(\d+)\.(weight|bias|noise_strength)"), r"layers.\1.\2"),
    # By the names of Hammer, and of GenForce's StyleGAN2-ADA.
    (re.compile(r"mapping\.(?:embedding|LabelEmbed)\.(weight|bias)"), r"mapping_network.embed.\1"),
)
_RESIDUAL = re.compile(r"synthesis\.residual(\d+)\.weight")
_OUTPUT = re.compile(r"synthesis\.output(\d+)\.(style\.)?(weight|bias)")


_EMBEDDINGS = ("mapping.embedding.weight", "mapping.LabelEmbed.weight")
LABEL_MATRIX = "mapping.label_weight"
"""The embedding of labels in GenForce's port of the original code."""
_SUPPORTED = {"normalize_z": True, "final_tanh": False, "use_wscale": True, "repeat_w": True, "demodulate": True}
"""Keywords of generators under which a network is another one, with the value that is supported."""
_STYLEGAN3_SETTINGS = {
    "resolution": "img_resolution",
    "num_critical": "num_critical",
    "first_cutoff": "first_cutoff",
    "first_stopband": "first_stopband",
    "last_stopband_rel": "last_stopband_rel",
    "margin_size": "margin_size",
    "output_scale": "output_scale",
    "filter_size": "filter_size",
    "act_upsampling": "lrelu_upsampling",
    "conv_clamp": "conv_clamp",
}
"""Keywords of Hammer, NVIDIA's beside them."""
GENFORCE_MEAN = "truncation.w_avg"
"""The name by which the files of GenForce differ from those of Hammer, its successor."""


def _our_name(name: str) -> str | None:
    """Our state-dict name; None for arrays that follow from the configuration."""
    if name in ("w_avg", GENFORCE_MEAN):
        return "w_avg"
    if name.endswith(("filter", "kernel")):
        return None
    if name == LABEL_MATRIX:
        return "mapping_network.embed.weight"
    if name == "synthesis.early_layer.const":
        return "const"
    for pattern, ours in _PATTERNS:
        if pattern.fullmatch(name):
            return pattern.sub(ours, name)
    if match := _RESIDUAL.fullmatch(name):
        return f"skips.{2 * int(match[1])}.weight"
    match = _OUTPUT.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{name!r} is no array of a GenForce StyleGAN2 generator.")
    return f"torgb.{2 * int(match[1])}.{'affine.' if match[2] else ''}{match[3]}"


def stylegan2_from_genforce(arrays: Mapping[str, Tensor], config: StyleGAN2Config) -> StyleGAN2:
    """Build a StyleGAN2 with skips from arrays under the names of GenForce, Hammer and PadInv.

    GenForce keeps the values of TensorFlow: kernels of up-sampling layers are the other way round, and biases of styles
    lack the 1 that is added to them. Hammer, and PadInv with it, keeps what the PyTorch code of NVIDIA has.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the configuration says.
    """
    renamed = {ours: tensor for name, tensor in arrays.items() if (ours := _our_name(name)) is not None}
    if GENFORCE_MEAN in arrays:
        for name, tensor in renamed.items():
            if re.fullmatch(r"layers\.\d*[13579]\.weight", name) and tensor.dim() == 4:
                renamed[name] = tensor.flip(2, 3)
            elif name.endswith("affine.bias"):
                renamed[name] = tensor + 1
    if LABEL_MATRIX in arrays:
        renamed["mapping_network.embed.weight"] = arrays[LABEL_MATRIX].t()
    # A batch axis of 1 stands before the constant, and two axes of 1 before the noise.
    for name in [name for name in renamed if name == "const" or name.endswith("noise_const")]:
        renamed[name] = renamed[name].squeeze(0) if name == "const" else renamed[name].squeeze(0).squeeze(0)
    return build_stylegan2(renamed, config)


def genforce_config(arrays: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> StyleGAN2Config:
    """Configuration of a StyleGAN2 under these names: what shapes show is taken from them, the rest from settings.

    Args:
        arrays: By the names of the file.
        settings: Keywords of the generator, as far as the file has them.

    Raises:
        CheckpointError: If an array that shows a size is missing, settings and shapes contradict each other, or the
            network is one that StyleGAN2 here is not.
    """
    settings = settings or {}
    together = _with_noise(arrays, settings)
    _check_mapping(settings, "StyleGAN2", together)
    try:
        shape = {name: tuple(tensor.shape) for name, tensor in arrays.items()}
        layers = sum(re.fullmatch(r"synthesis\.layer\d+\.noise_strength", name) is not None for name in shape)
        depth = sum(re.fullmatch(r"mapping\.dense\d+\.weight", name) is not None for name in shape)
        first, last = shape["mapping.dense0.weight"], shape[f"mapping.dense{depth - 1}.weight"]
        table = tuple(shape[f"synthesis.layer{layer}.weight"][0] for layer in range(0, layers, 2))
        channels = shape[f"synthesis.output{len(table) - 1}.weight"][0]
        embed_dim, label_dim = next((shape[name] for name in _EMBEDDINGS if name in shape), (0, 0))
        if LABEL_MATRIX in shape:
            label_dim, embed_dim = shape[LABEL_MATRIX]
        config = StyleGAN2Config(
            resolution=2 << len(table),
            z_dim=first[1] - embed_dim,
            w_dim=last[0],
            label_dim=label_dim,
            channel_table=table,
            mapping_layers=depth,
            mapping_width=first[0],
            learning_rate_multiplier=float(settings.get("mapping_lr_mul", 0.01)),
            embed_dim=embed_dim or None,
            label_with_noise=together,
            architecture=_architecture(shape),
            clamp=settings.get("conv_clamp"),
            image_channels=channels,
        )
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise CheckpointError(f"it is no whole StyleGAN2: {error} is missing or has no sense") from error
    for name, found in (("resolution", config.resolution), ("architecture", config.architecture)):
        stated = {"origin": "orig"}.get(settings.get(name, found), settings.get(name, found))
        if stated != found:
            raise CheckpointError(f"its settings say {name} {stated!r}, but its arrays {found}")
    return config


def _architecture(names: Iterable[str]) -> str:
    if "synthesis.output0.weight" in names:
        return "skip"
    return "resnet" if any(_RESIDUAL.fullmatch(name) for name in names) else "orig"


def _with_noise(arrays: Mapping[str, Tensor], settings: Mapping[str, Any]) -> bool:
    """Whether noise and label are normalised as one vector, as in the original code."""
    # The converter of Hammer makes embeddings without a bias for exactly those.
    bare = "mapping.embedding.weight" in arrays and "mapping.embedding.bias" not in arrays
    return LABEL_MATRIX in arrays or (bare and settings.get("normalize_embedding_latent", True) is True)


def _check_mapping(settings: Mapping[str, Any], what: str, together: bool = False) -> None:
    """Make sure that the network is one that is the same here.

    Raises:
        CheckpointError: If it is another one; says in what.
    """
    supported = dict(_SUPPORTED)
    if settings.get("label_dim"):
        apart = {"normalize_embedding": True, "normalize_embedding_latent": False, "embedding_use_wscale": True}
        supported |= {name: value is not together for name, value in apart.items()}
        supported["normalize_z"] = not together
    for name, value in supported.items():
        if settings.get(name, value) != value:
            raise CheckpointError(f"it is a {what} with {name} {settings[name]!r}; only {value!r} is supported")


def stylegan3_from_genforce(
    arrays: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None
) -> AbstractGenerator:
    """Build a StyleGAN3 from the state dictionary of Hammer.

    Args:
        arrays: By the names of the file.
        settings: Keywords of its generator, as far as the file has them.

    Raises:
        CheckpointError: If an array is missing, unknown or of another shape than the settings say.
    """
    settings = settings or {}
    _check_mapping(settings, "StyleGAN3")
    stated = {theirs: settings[ours] for ours, theirs in _STYLEGAN3_SETTINGS.items() if ours in settings}
    stated["mapping_kwargs"] = {"lr_multiplier": settings.get("mapping_lr_mul", 0.01)}
    try:
        names = _stylegan3_layers(arrays, int(settings.get("margin_size", 10)))
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"it is no whole StyleGAN3: {error} is missing or has no sense") from error
    renamed: dict[str, Tensor] = {}
    for name, tensor in arrays.items():
        if name == "synthesis.early_layer.grid":
            continue
        renamed[_stylegan3_name(name, names)] = tensor
    return stylegan3_from_nvlabs(renamed, stated, "it")


def _stylegan3_layers(arrays: Mapping[str, Tensor], margin: int) -> dict[str, str]:
    """The names that NVIDIA's code would give to the layers, by theirs: with the grid and the channels of each.

    What a file says about the grids is that of the input and, by the lengths of the filters around each leaky ReLU, by
    how much it becomes finer from layer to layer.
    """
    count = sum(re.fullmatch(r"synthesis\.layer\d+\.conv\.weight", name) is not None for name in arrays)
    rate = arrays["synthesis.early_layer.grid"].shape[1] - 2 * margin
    names: dict[str, str] = {}
    for layer in range(count):
        ours = f"synthesis.layer{layer}"
        up, down = (arrays.get(f"{ours}.filter.{way}_filter") for way in ("up", "down"))
        if up is not None and down is not None:
            rate = rate * up.shape[0] // down.shape[0]
        size = rate + (2 * margin if layer < count - 2 else 0)
        names[ours] = f"synthesis.L{layer}_{size}_{len(arrays[f'{ours}.conv.weight'])}"
    return names


def _stylegan3_name(name: str, layers: Mapping[str, str]) -> str:
    """The name that NVIDIA's code would give to an array of a StyleGAN3."""
    if name == "w_avg":
        return "mapping.w_avg"
    if match := re.fullmatch(r"mapping\.(?:dense(\d+)|embedding)\.(weight|bias)", name):
        return f"mapping.{'embed' if match[1] is None else f'fc{match[1]}'}.{match[2]}"
    if match := re.fullmatch(r"synthesis\.early_layer\.(.+)", name):
        return f"synthesis.input.{ {'frequency': 'freqs', 'phase': 'phases'}.get(match[1], match[1]) }"
    match = re.fullmatch(r"(synthesis\.layer\d+)\.(?:conv\.|filter\.)?(.+)", name)
    if match is None or match[1] not in layers:
        raise CheckpointError(f"{name!r} is no array of a Hammer StyleGAN3 generator")
    return f"{layers[match[1]]}.{re.sub(r'^style', 'affine', match[2])}"
