"""Array names of StyleGAN1 in NVIDIA's TensorFlow code, in GenForce and in rosinality's style-based-gan-pytorch.

Most of a configuration is in the shapes. What is not, the settings of a file say, by the keywords of its own code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ..generators import AbstractGenerator, StyleGAN1, build_generator

Arrays = Mapping[str, Tensor]
Settings = Mapping[str, Any]
Renamed = tuple[str, Tensor]

NOISE_SEED = 0
"""Of the constant noise of files that hold none."""
MEAN_SAMPLES = 10_000
"""For the mean w of files that hold none."""
MOST_LAYERS = 22
"""Those of 8192 pixels; who counts further asks for endless memory."""

# Settings under which a network is another one than that of the paper, with the value that is supported.
_TENSORFLOW = {
    "use_wscale": True,
    "use_styles": True,
    "use_noise": True,
    "use_instance_norm": True,
    "use_pixel_norm": False,
    "const_input_layer": True,
    "nonlinearity": "lrelu",
    "blur_filter": [1, 2, 1],
    "mapping_use_wscale": True,
    "mapping_nonlinearity": "lrelu",
    "normalize_latents": True,
}
_GENFORCE = {"use_wscale": True, "final_tanh": False, "noise_type": "spatial", "normalize_z": True}

_TENSORFLOW_LAYER = re.compile(r"(?:.*/)?(\d{1,4})x\1/(Const|Conv|Conv0_up|Conv1)/(.+)")
_TENSORFLOW_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "Noise/weight": "noise_weight",
    "StyleMod/weight": "style.weight",
    "StyleMod/bias": "style.bias",
}
_GENFORCE_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "style.weight": "style.weight",
    "style.bias": "style.bias",
    "apply_noise.weight": "noise_weight",
    "apply_noise.noise": "noise_const",
    # Hammer's.
    "noise_strength": "noise_weight",
    "noise": "noise_const",
}
_ROSINALITY_LAYER = re.compile(r"generator\.progression\.(\d{1,2})\.(conv|noise|adain)([12])\.(.+)")
# In a layer that up-samples, the convolution stands behind the repetition of pixels, or, fused with it, in its place.
_ROSINALITY_PARTS = {
    "conv.conv.weight_orig": "weight",
    "conv.conv.bias": "bias",
    "conv.1.conv.weight_orig": "weight",
    "conv.1.conv.bias": "bias",
    "conv.0.weight": "weight",
    "conv.0.bias": "bias",
    "noise.weight_orig": "noise_weight",
    "adain.style.linear.weight_orig": "style.weight",
    "adain.style.linear.bias": "style.bias",
}
_ROSINALITY_BLUR = re.compile(r"conv\.[12]\.weight(_flip)?")
_ROSINALITY_FUSED = re.compile(r"generator\.progression\.(\d{1,2})\.conv1\.0\.weight")


def stylegan1_from_tensorflow(arrays: Arrays, settings: Settings | None = None, what: str = "It") -> AbstractGenerator:
    """Build a StyleGAN1 from the variables of NVIDIA's TensorFlow code.

    Args:
        arrays: Variables of the generator, its mapping and its synthesis together, under names such as "dlatent_avg" or
            "4x4/Const/const" with any path before.
        settings: Keywords of the build function, which the file carries, and "crop" (height, width). What is absent has
            the value that the code gives it.
        what: Names the file in errors.

    Raises:
        CheckpointError: If an array is missing, unknown or of an impossible shape, or a setting is not supported.
    """
    settings = settings or {}
    _refuse(settings, _TENSORFLOW, what)
    return _build(_renamed(arrays, _from_tensorflow, what), settings, settings.get("mapping_lrmul", 0.01), what)


def stylegan1_from_genforce(arrays: Arrays, settings: Settings | None = None, what: str = "It") -> AbstractGenerator:
    """Build a StyleGAN1 from the state dictionary of GenForce's port, or of Hammer, its successor.

    Args:
        arrays: By the names of the file.
        settings: Keywords of the port's generator, and "crop" (height, width), as far as they are known.
        what: Names the file in errors.

    Raises:
        CheckpointError: If an array is missing, unknown or of an impossible shape, or a setting is not supported.
    """
    settings = settings or {}
    _refuse(settings, _GENFORCE, what)
    return _build(_renamed(arrays, _from_genforce, what), settings, settings.get("mapping_lr_mul", 0.01), what)


def stylegan1_from_rosinality(arrays: Arrays, settings: Settings | None = None, what: str = "It") -> AbstractGenerator:
    """Build a StyleGAN1 from the state dictionary of rosinality's style-based-gan-pytorch.

    Such a file has layers for all resolutions, trained or not, and neither noise nor a mean w. Noise is drawn from a
    seed, and the mean w is that of samples unless it is given.

    Args:
        arrays: By the names of the file.
        settings: "step", whose pictures have ``4 << step`` pixels, the last one unless said; "alpha", the share of that
            step beside the one before, 1 unless said; "mean_style" `[D]`; "crop" (height, width).
        what: Names the file in errors.

    Raises:
        CheckpointError: If an array is missing, unknown or of an impossible shape, or a setting is not supported.
    """
    settings = settings or {}
    found = _renamed(arrays, _from_rosinality, what)
    last = (_checked(_count(found, r"layers\.(\d+)\.noise_weight"), what) - 1) // 2
    step, alpha = int(settings.get("step", last)), float(settings.get("alpha", 1.0))
    if not 1 <= step <= last or not alpha <= 1:
        raise CheckpointError(f"{what} has steps up to {last} and alphas up to 1, not step {step} with alpha {alpha}.")
    found = _first_layers(found, 2 * step + 2)
    source = torch.Generator().manual_seed(NOISE_SEED)
    for level in range(step + 1):
        noise = torch.randn(4 << level, 4 << level, generator=source)
        found |= {f"layers.{2 * level + k}.noise_const": noise for k in (0, 1)}
    if "const" in found:
        found["layers.0.bias"] = torch.zeros(len(found["const"]))
    if settings.get("mean_style") is not None:
        found["w_avg"] = torch.as_tensor(settings["mean_style"]).flatten()
    # That code takes a negative alpha for 1.
    found["lod"] = torch.tensor(1.0 - alpha if alpha >= 0 else 0.0)
    fused = [int(match[1]) for name in arrays if (match := _ROSINALITY_FUSED.fullmatch(name))]
    fields = {"variant": "rosinality", "fused_from": 4 << min(fused, default=last + 1)}
    return _build(found, settings, 1.0, what, **fields)


def _refuse(settings: Settings, supported: Settings, what: str) -> None:
    for name, value in supported.items():
        given = settings.get(name, value)
        if (list(given) if isinstance(given, tuple) else given) != value:
            raise CheckpointError(f"{what} is a StyleGAN1 with {name}={given!r}; only {value!r} is supported.")


def _renamed(arrays: Arrays, rename: Callable[[str, Tensor], Renamed | None], what: str) -> dict[str, Tensor]:
    """Arrays by our names, in our order of axes; those that follow from the configuration are left out."""
    found: dict[str, Tensor] = {}
    for name, tensor in arrays.items():
        try:
            pair = rename(name, tensor)
        except (IndexError, OverflowError, RuntimeError) as error:
            raise CheckpointError(f"{what} has {name!r} of the impossible shape {list(tensor.shape)}.") from error
        if pair is not None:
            found[pair[0]] = pair[1]
    return found


def _from_tensorflow(name: str, tensor: Tensor) -> Renamed | None:
    short = name.rpartition("/")[2]
    if short == "dlatent_avg":
        return "w_avg", tensor
    if short == "lod":
        return "lod", tensor
    if match := re.fullmatch(r"noise(\d{1,2})", short):
        return f"layers.{match[1]}.noise_const", tensor[0, 0]
    if match := re.fullmatch(r"(?:.*/)?Dense(\d{1,2})/(weight|bias)", name):
        return f"mapping_network.layers.{match[1]}.{match[2]}", tensor.t()
    if re.fullmatch(r"(?:.*/)?LabelConcat/weight", name):
        return "mapping_network.embed", tensor
    if match := re.fullmatch(r"(?:.*/)?ToRGB_lod(\d{1,2})/(weight|bias)", name):
        return f"lods.{match[1]}.{match[2]}", _kernel(tensor) if match[2] == "weight" else tensor
    match = _TENSORFLOW_LAYER.fullmatch(name)
    if match and match[3] == "const":
        return "const", tensor[0]
    if match is None or match[3] not in _TENSORFLOW_PARTS:
        raise _unknown(name, "TensorFlow")
    layer = 2 * (int(match[1]).bit_length() - 3) + (match[2] in ("Conv", "Conv1"))
    part = _TENSORFLOW_PARTS[match[3]]
    return f"layers.{layer}.{part}", _kernel(tensor) if part == "weight" else tensor.t()


def _kernel(tensor: Tensor) -> Tensor:
    """A kernel `[k, k, I, O]` as `[O, I, k, k]`."""
    return tensor.permute(3, 2, 0, 1)


def _from_genforce(name: str, tensor: Tensor) -> Renamed | None:
    if name in ("truncation.w_avg", "w_avg", "synthesis.lod"):
        return name.rpartition(".")[2], tensor
    if name in ("mapping.label_weight", "mapping.embedding"):
        return "mapping_network.embed", tensor
    if match := re.fullmatch(r"mapping\.dense(\d{1,2})\.(weight|bias)", name):
        return f"mapping_network.layers.{match[1]}.{match[2]}", tensor
    if match := re.fullmatch(r"synthesis\.output(\d{1,2})\.(weight|bias)", name):
        return f"torgb.{2 * int(match[1]) + 1}.{match[2]}", tensor
    match = re.fullmatch(r"synthesis\.layer(\d{1,2})\.(.+)", name)
    if match and match[2] in ("blur.kernel", "filter"):
        return None
    if match and match[2] == "const":
        return "const", tensor[0]
    if match is None or match[2] not in _GENFORCE_PARTS:
        raise _unknown(name, "GenForce")
    part = _GENFORCE_PARTS[match[2]]
    changes: dict[str, Callable[[Tensor], Tensor]] = {"noise_const": lambda x: x[0, 0], "noise_weight": Tensor.flatten}
    return f"layers.{match[1]}.{part}", changes.get(part, lambda x: x)(tensor)


def _from_rosinality(name: str, tensor: Tensor) -> Renamed | None:
    if match := re.fullmatch(r"style\.(\d{1,2})\.linear\.(weight|bias)(_orig)?", name):
        # One of two is a layer, beginning with the second; the others have no weights.
        return f"mapping_network.layers.{(int(match[1]) - 1) // 2}.{match[2]}", tensor
    if match := re.fullmatch(r"generator\.to_rgb\.(\d{1,2})\.conv\.(weight|bias)(_orig)?", name):
        return f"torgb.{2 * int(match[1]) + 1}.{match[2]}", tensor
    if name == "generator.progression.0.conv1.input":
        return "const", tensor[0]
    match = _ROSINALITY_LAYER.fullmatch(name)
    part = f"{match[2]}.{match[4]}" if match else ""
    if _ROSINALITY_BLUR.fullmatch(part):
        return None
    if match is None or part not in _ROSINALITY_PARTS:
        raise _unknown(name, "rosinality")
    if part == "conv.0.weight":
        # Its axes are those of a transposed convolution, and it takes the mean of four shifted kernels, not their sum.
        tensor = tensor.transpose(0, 1) / 4
    ours = f"layers.{2 * int(match[1]) + int(match[3]) - 1}.{_ROSINALITY_PARTS[part]}"
    return ours, tensor.flatten() if part == "noise.weight_orig" else tensor


def _unknown(name: str, form: str) -> CheckpointError:
    return CheckpointError(f"{name!r} is no array of a StyleGAN1 generator in the form of {form}.")


def _count(arrays: Arrays, pattern: str) -> int:
    """One more than the highest number in a name that fits the pattern."""
    return 1 + max((int(match[1]) for name in arrays if (match := re.fullmatch(pattern, name))), default=-1)


def _checked(layers: int, what: str) -> int:
    """A number of layers that a network can have.

    Raises:
        CheckpointError: If it has another one.
    """
    if layers % 2 or not 4 <= layers <= MOST_LAYERS:
        raise CheckpointError(f"{what} is no StyleGAN1 generator: it counts {layers} layers, not 4 to {MOST_LAYERS}.")
    return layers


def _first_layers(arrays: Arrays, count: int) -> dict[str, Tensor]:
    """Arrays without those of later layers."""
    pattern = re.compile(r"(?:layers|torgb)\.(\d+)\..+")
    return {name: x for name, x in arrays.items() if not (m := pattern.fullmatch(name)) or int(m[1]) < count}


def _build(
    arrays: Mapping[str, Tensor], settings: Settings, multiplier: float, what: str, **fields: Any
) -> AbstractGenerator:
    """The frozen generator of arrays under our names; "lod" among them, and toRGBs by level ("lods") or layer."""
    arrays, fused = dict(arrays), settings.get("fused_scale", "auto")
    layers = _checked(_count(arrays, r"layers\.(\d+)\.bias"), what)
    try:
        lod = float(arrays.pop("lod", torch.zeros(())))
        for name in [name for name in arrays if name.startswith("lods.")]:
            _, level, part = name.split(".")
            arrays[f"torgb.{layers - 1 - 2 * int(level)}.{part}"] = arrays.pop(name)
        fields = {
            **_shape(arrays, layers),
            "learning_rate_multiplier": float(multiplier),
            "fused_from": settings.get("fused_scale_res", 128) if fused == "auto" else 8 if fused else 4 << layers // 2,
            "lod": lod,
            "crop": tuple(settings["crop"]) if settings.get("crop") else None,
            **fields,
        }
        # Layers and toRGBs that the level of detail leaves out are not kept.
        acting = layers - 2 * math.floor(lod)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, OverflowError, StopIteration) as error:
        raise CheckpointError(f"{what} is no StyleGAN1 generator: {error} is missing or has no sense.") from error
    arrays = _first_layers(arrays, acting)
    shown = {acting - 1} if lod % 1 == 0 else {acting - 1, acting - 3}
    arrays = {
        name: x for name, x in arrays.items() if not name.startswith("torgb.") or int(name.split(".")[1]) in shown
    }
    mean_known = "w_avg" in arrays
    if not mean_known:
        arrays["w_avg"] = torch.zeros(fields["w_dim"])
    generator = build_generator("stylegan1", fields, arrays, what)
    return generator if mean_known else _with_mean(generator)


@torch.no_grad()
def _with_mean(generator: AbstractGenerator) -> AbstractGenerator:
    """The generator with the mean of samples as its mean w, those of all classes alike."""
    assert isinstance(generator, StyleGAN1)
    labels = torch.full((generator.label_dim,), 1 / max(generator.label_dim, 1)) if generator.label_dim else None
    generator.w_avg.copy_(generator.mapping(generator.sample_z(MEAN_SAMPLES, seed=0), labels)[:, 0].mean(dim=0))
    return generator


def _shape(arrays: Arrays, layers: int) -> dict[str, Any]:
    """The fields of the configuration that shapes show."""
    depth = _count(arrays, r"mapping_network\.layers\.(\d+)\.weight")
    first, last = (arrays[f"mapping_network.layers.{k}.weight"] for k in (0, depth - 1))
    labels = arrays.get("mapping_network.embed")
    rgb = next(x for name, x in arrays.items() if re.fullmatch(r"torgb\.\d+\.bias", name))
    return {
        "resolution": 2 << layers // 2,
        "z_dim": first.shape[1] - (0 if labels is None else labels.shape[1]),
        "w_dim": last.shape[0],
        "label_dim": 0 if labels is None else labels.shape[0],
        "channel_table": tuple(len(arrays[f"layers.{layer}.bias"]) for layer in range(1, layers, 2)),
        "mapping_layers": depth,
        "mapping_width": first.shape[0],
        "image_channels": len(rgb),
    }
