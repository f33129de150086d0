"""Write images into an overlay: `set_images.py OVERLAY NAME=IMAGE@DIGEST ...`, each by its digest.

Here: the `images` of a kustomization. Not here: building them (`deploy/images`) or what else an overlay says.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

PINNED = re.compile(r"(?P<name>[\w-]+)=(?P<image>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")


def set_images(overlay: Path, given: list[str]) -> None:
    """Replace the images of an overlay by those that are given.

    Raises:
        SystemExit: when one is not named by its digest, or is none of the overlay's.
    """
    file = overlay / "kustomization.yaml"
    said = yaml.safe_load(file.read_text())
    known = {image["name"]: image for image in said.get("images", [])}
    if not known:
        raise SystemExit(f"{overlay} names no images: give them to the overlay that it is made of.")
    for one in given:
        found = PINNED.fullmatch(one)
        if found is None or found["name"] not in known:
            raise SystemExit(f"{one} is not one of {', '.join(f'{name}=IMAGE@sha256:DIGEST' for name in known)}.")
        known[found["name"]] = {"name": found["name"], "newName": found["image"], "digest": found["digest"]}
    file.write_text(yaml.safe_dump({**said, "images": list(known.values())}, sort_keys=False))


if __name__ == "__main__":
    set_images(Path(sys.argv[1]), sys.argv[2:])
