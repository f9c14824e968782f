"""Write the table of published networks into docs/networks.md: ``python docs/make_networks.py``."""

from __future__ import annotations

import re
from pathlib import Path

from saminv._files import atomic_write
from saminv.weights import NETWORKS
from saminv.weights.networks import FORMS

PAGE = Path(__file__).resolve().parent / "networks.md"
HEADING = ["name", "trained on", "pixels", "MB", "form", "licence as stated", "page", "paper"]


def table() -> str:
    """All networks, a line each."""
    rows = [HEADING, ["---"] * len(HEADING)]
    for name in NETWORKS:
        network = NETWORKS.get(name)
        height, width = network.image_size
        page = network.page.removeprefix("https://github.com/")
        size = "" if network.size is None else str(network.size)
        source = [f"[{page}]({network.page})", f"[{network.paper}](https://arxiv.org/abs/{network.paper})"]
        rows.append(
            [f"`{name}`", network.data, f"{width} x {height}", size, FORMS[network.form], network.licence, *source]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main() -> None:
    """Replace the table of the page."""
    text = re.sub(
        r"(<!-- begin: networks -->\n).*?(<!-- end: networks -->)",
        lambda found: f"{found[1]}{table()}\n{found[2]}",
        PAGE.read_text(encoding="utf-8"),
        flags=re.S,
    )
    with atomic_write(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
