"""Networks that their authors have published: where each comes from, in which form, and under which terms.

Nothing here is fetched before somebody asks for it by name; then :func:`saminv.weights.fetch_network` does.

How to add one: a row of the table below. Every address must stand on the page that is named beside it, or in the code
there. Sizes are those of copies of the file where the publisher tells none; leave them out where nobody does. A SHA-256
belongs here only if the publisher gives it; all other files are pinned when they are first used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .._registry import Registry

FORMS = {
    "nvidia-tensorflow": "pickle of NVIDIA's TensorFlow code",
    "nvidia-pytorch": "pickle of NVIDIA's PyTorch code",
    "genforce": "checkpoint of GenForce or Hammer",
    "huggingface": "folder of pytorch-pretrained-BigGAN",
}
"""What the files of a network are."""
MB = 1_000_000
TOLERANCE = 0.98
"""Part of the size that is known which the file has at least: sizes are rounded."""
SMALLEST_CONFIG = 100
"""Bytes of a configuration at least."""


@dataclass(frozen=True)
class NetworkFile:
    """One file of a network.

    Attributes:
        name: Under which it is kept.
        url: Where it comes from, as published.
        minimal_size: Bytes that the whole file has at least: those of one generator in float32 where no more is known.
        sha256: Its SHA-256 in hexadecimal, if its publisher gives it.
    """

    name: str
    url: str
    minimal_size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Network:
    """A published network.

    Attributes:
        family: "stylegan1", "stylegan2", "stylegan3" or "biggan-deep".
        data: What it was trained on.
        resolution: Side of its square canvas, in pixels.
        form: What its files are, a key of :data:`FORMS`.
        files: One, or those of a folder.
        licence: Terms that its publisher states.
        page: Where it is published, with its terms.
        paper: arXiv number.
        crop: (height, width) of the picture in the middle of the canvas; the whole canvas where None.
        size: Of its files in MB, about; None where it is unknown.
    """

    family: str
    data: str
    resolution: int
    form: str
    files: tuple[NetworkFile, ...]
    licence: str
    page: str
    paper: str
    crop: tuple[int, int] | None = None
    size: int | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.crop or (self.resolution, self.resolution)


NETWORKS: Registry[Network] = Registry("network")
"""Published networks by name."""


@dataclass(frozen=True)
class _Row:
    """What differs between the networks of one publication.

    Attributes:
        name, data, resolution, crop, size, sha256: As of :class:`Network` and its main file.
        file: Name of that file, perhaps in a folder.
        place: Where it is in the folder of the publication; under ``file`` where None.
        config: The same of a configuration that belongs to it.
    """

    name: str
    data: str
    resolution: int
    file: str
    size: int | None = None
    crop: tuple[int, int] | None = None
    place: str | None = None
    config: str | None = None
    sha256: str | None = None


def _publish(
    *,
    family: str,
    form: str,
    page: str,
    licence: str,
    paper: str,
    folder: str,
    at_least: int,
    rows: Sequence[_Row],
) -> None:
    """Add the networks of one publication; no file of them is shorter than ``at_least`` MB."""
    for row in rows:
        files = tuple(_files(row, folder, at_least if row.size is None else TOLERANCE * row.size))
        network = Network(
            family, row.data, row.resolution, form, files, licence, page, paper, crop=row.crop, size=row.size
        )
        NETWORKS.add(row.name, network)


def _files(row: _Row, folder: str, megabytes: float) -> Iterator[NetworkFile]:
    if row.config is not None:
        yield NetworkFile("config.json", folder + row.config, SMALLEST_CONFIG)
    yield NetworkFile(row.file.rpartition("/")[2], folder + (row.place or row.file), int(megabytes * MB), row.sha256)


_publish(
    family="stylegan1",
    form="nvidia-tensorflow",
    page="https://github.com/NVlabs/stylegan",
    licence="CC BY-NC 4.0",
    paper="1812.04948",
    folder="https://drive.google.com/uc?id=",
    at_least=100,
    rows=[
        _Row(
            "stylegan1-ffhq-1024",
            "FFHQ",
            1024,
            "karras2019stylegan-ffhq-1024x1024.pkl",
            place="1MEGjdvVpUsu1jB4zrXZN7Y4kBBOzizDQ",
        ),
        _Row(
            "stylegan1-celebahq-1024",
            "CelebA-HQ",
            1024,
            "karras2019stylegan-celebahq-1024x1024.pkl",
            place="1MGqJl28pN4t7SAtSrPdSRJSQJqahkzUf",
        ),
        _Row(
            "stylegan1-bedrooms-256",
            "LSUN Bedroom",
            256,
            "karras2019stylegan-bedrooms-256x256.pkl",
            place="1MOSKeGF0FJcivpBI7s63V9YHloUTORiF",
        ),
        _Row(
            "stylegan1-cars-512x384",
            "LSUN Car",
            512,
            "karras2019stylegan-cars-512x384.pkl",
            crop=(384, 512),
            place="1MJ6iCfNtMIRicihwRorsM3b7mmtmK9c3",
        ),
        _Row(
            "stylegan1-cats-256",
            "LSUN Cat",
            256,
            "karras2019stylegan-cats-256x256.pkl",
            place="1MQywl0FNt6lHu8E_EUqnRbviagS7fbiJ",
        ),
    ],
)
_publish(
    family="stylegan2",
    form="nvidia-tensorflow",
    page="https://github.com/NVlabs/stylegan2",
    licence="Nvidia Source Code License-NC",
    paper="1912.04958",
    folder="https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/",
    at_least=120,
    rows=[
        _Row("stylegan2-ffhq-1024", "FFHQ", 1024, "stylegan2-ffhq-config-f.pkl", size=382),
        _Row("stylegan2-cars-512x384", "LSUN Car", 512, "stylegan2-car-config-f.pkl", size=364, crop=(384, 512)),
        _Row("stylegan2-cats-256", "LSUN Cat", 256, "stylegan2-cat-config-f.pkl", size=357),
        _Row("stylegan2-church-256", "LSUN Church", 256, "stylegan2-church-config-f.pkl", size=357),
        _Row("stylegan2-horses-256", "LSUN Horse", 256, "stylegan2-horse-config-f.pkl", size=357),
    ],
)
_publish(
    family="stylegan2",
    form="nvidia-pytorch",
    page="https://github.com/NVlabs/stylegan2-ada-pytorch",
    licence="NVIDIA Source Code License for StyleGAN2 with ADA",
    paper="2006.06676",
    folder="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/",
    at_least=95,
    rows=[
        _Row("stylegan2-afhqcat-512", "AFHQ Cat", 512, "afhqcat.pkl", size=364),
        _Row("stylegan2-afhqdog-512", "AFHQ Dog", 512, "afhqdog.pkl", size=364),
        _Row("stylegan2-afhqwild-512", "AFHQ Wild", 512, "afhqwild.pkl", size=364),
        _Row("stylegan2-metfaces-1024", "MetFaces", 1024, "metfaces.pkl", size=382),
        _Row("stylegan2-ffhq-512", "FFHQ", 512, "transfer-learning-source-nets/ffhq-res512-mirror-stylegan2-noaug.pkl"),
        _Row("stylegan2-ffhq-256", "FFHQ", 256, "transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl"),
        _Row(
            "stylegan2-celebahq-256",
            "CelebA-HQ",
            256,
            "transfer-learning-source-nets/celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
        ),
        _Row(
            "stylegan2-dogs-256",
            "LSUN Dog",
            256,
            "transfer-learning-source-nets/lsundog-res256-paper256-kimg100000-noaug.pkl",
        ),
    ],
)
_publish(
    family="stylegan2",
    form="nvidia-pytorch",
    page="https://github.com/NVlabs/stylegan3",
    licence="NVIDIA Source Code License for StyleGAN3",
    paper="2106.12423",
    folder="https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/",
    at_least=95,
    rows=[
        _Row("stylegan2-afhqv2-512", "AFHQv2", 512, "stylegan2-afhqv2-512x512.pkl"),
    ],
)
_publish(
    family="stylegan2",
    form="genforce",
    page="https://github.com/EzioBy/padinv",
    licence="none stated",
    paper="2203.11105",
    folder="https://drive.google.com/file/d/",
    at_least=95,
    rows=[
        _Row(
            "stylegan2-bedrooms-256",
            "LSUN Bedroom",
            256,
            "stylegan2-bedroom.pth",
            place="1LTEU2Dt2pyJTHHUTjwFWAkmNco3EXmfL/view?usp=sharing",
        ),
    ],
)
_publish(
    family="stylegan3",
    form="nvidia-pytorch",
    page="https://github.com/NVlabs/stylegan3",
    licence="NVIDIA Source Code License for StyleGAN3",
    paper="2106.12423",
    folder="https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/",
    at_least=40,
    rows=[
        _Row("stylegan3-t-ffhq-1024", "FFHQ", 1024, "stylegan3-t-ffhq-1024x1024.pkl"),
        _Row("stylegan3-t-ffhqu-1024", "FFHQ-U", 1024, "stylegan3-t-ffhqu-1024x1024.pkl"),
        _Row("stylegan3-t-ffhqu-256", "FFHQ-U", 256, "stylegan3-t-ffhqu-256x256.pkl"),
        _Row("stylegan3-t-metfaces-1024", "MetFaces", 1024, "stylegan3-t-metfaces-1024x1024.pkl"),
        _Row("stylegan3-t-metfacesu-1024", "MetFaces-U", 1024, "stylegan3-t-metfacesu-1024x1024.pkl"),
        _Row("stylegan3-t-afhqv2-512", "AFHQv2", 512, "stylegan3-t-afhqv2-512x512.pkl"),
        _Row("stylegan3-r-ffhq-1024", "FFHQ", 1024, "stylegan3-r-ffhq-1024x1024.pkl"),
        _Row("stylegan3-r-ffhqu-1024", "FFHQ-U", 1024, "stylegan3-r-ffhqu-1024x1024.pkl"),
        _Row("stylegan3-r-ffhqu-256", "FFHQ-U", 256, "stylegan3-r-ffhqu-256x256.pkl"),
        _Row("stylegan3-r-metfaces-1024", "MetFaces", 1024, "stylegan3-r-metfaces-1024x1024.pkl"),
        _Row("stylegan3-r-metfacesu-1024", "MetFaces-U", 1024, "stylegan3-r-metfacesu-1024x1024.pkl"),
        _Row("stylegan3-r-afhqv2-512", "AFHQv2", 512, "stylegan3-r-afhqv2-512x512.pkl"),
    ],
)
_publish(
    family="biggan-deep",
    form="huggingface",
    page="https://github.com/huggingface/pytorch-pretrained-BigGAN",
    licence="MIT",
    paper="1809.11096",
    folder="https://s3.amazonaws.com/models.huggingface.co/biggan/",
    at_least=200,
    rows=[
        _Row(
            "biggan-deep-128",
            "ImageNet",
            128,
            "pytorch_model.bin",
            size=211,
            place="biggan-deep-128-pytorch_model.bin",
            config="biggan-deep-128-config.json",
        ),
        _Row(
            "biggan-deep-256",
            "ImageNet",
            256,
            "pytorch_model.bin",
            size=235,
            place="biggan-deep-256-pytorch_model.bin",
            config="biggan-deep-256-config.json",
        ),
        _Row(
            "biggan-deep-512",
            "ImageNet",
            512,
            "pytorch_model.bin",
            size=236,
            place="biggan-deep-512-pytorch_model.bin",
            config="biggan-deep-512-config.json",
        ),
    ],
)
