"""A folder in the layout of published code, for tests: a few lines around our own generator under the other names."""

from __future__ import annotations

from pathlib import Path

NETWORKS = '''
import torch
from saminv.generators.stylegan2 import StyleGAN2, StyleGAN2Config

print("hello from the published code")


def published_name(name):
    """Ours is layers.3.weight where theirs is synthesis.b16.conv0.weight."""
    if name == "const":
        return "synthesis.b4.const"
    if name == "w_avg":
        return "mapping.w_avg"
    kind, number, rest = name.split(".", 2)
    if kind == "mapping_network":
        index, rest = rest.split(".")
        return f"mapping.fc{index}.{rest}"
    layer = int(number)
    part = "torgb" if kind == "torgb" else "conv0" if layer % 2 else "conv1"
    return f"synthesis.b{4 << ((layer + 1) // 2)}.{part}.{rest}"


class Generator(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={}, synthesis_kwargs={}):
        super().__init__()
        assert synthesis_kwargs.pop("num_fp16_res") == 0 and synthesis_kwargs.pop("conv_clamp") is None
        sizes = {name: synthesis_kwargs[name] for name in ("channel_base", "channel_max")}
        layers = mapping_kwargs["num_layers"]
        self.inner = StyleGAN2(StyleGAN2Config(img_resolution, z_dim, w_dim, mapping_layers=layers, **sizes))

    def state_dict(self):
        return {published_name(name): tensor for name, tensor in self.inner.state_dict().items()}

    def synthesis(self, ws, noise_mode="random"):
        assert noise_mode == "const"
        return self.inner.synthesis(ws, noise=noise_mode)
'''


def write_published(folder: Path, edit: tuple[str, str] = ("", "")) -> Path:
    """Write the folder, with one piece of its code replaced by another; returns it."""
    (folder / "training").mkdir(parents=True)
    old, new = edit
    assert old in NETWORKS
    (folder / "training" / "networks.py").write_text(NETWORKS.replace(old, new) if old else NETWORKS)
    return folder
