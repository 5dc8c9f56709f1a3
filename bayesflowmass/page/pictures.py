"""Image files as ``data:`` URIs."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, UnidentifiedImageError

from bayesflowmass.page.document import Picture

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def picture(path: Path, *, alt: str, caption: str) -> Picture:
    """An svg or png file as part of a page. An svg is shown as an image, so that no script in it runs.

    Args:
        path: of the file.
        alt: what it shows, for readers who cannot see it.
        caption: what it is.

    Raises:
        ValueError: the file is not an image of its kind.
    """
    try:
        width, height = _svg_size(path) if path.suffix == ".svg" else _png_size(path)
    except (UnidentifiedImageError, ElementTree.ParseError, OSError) as error:
        raise ValueError(
            f"'{path}' is not a readable {path.suffix[1:]} image ({error}); run the command that drew it again."
        ) from None
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(f"data:{_TYPES[path.suffix]};base64,{data}", width, height, alt, caption)


def described(path: Path) -> str | None:
    """What a figure says of itself: ``Description`` of a png, ``desc`` of an svg; None where it says nothing."""
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                found = image.info.get("Description")
        else:
            found = ElementTree.parse(path).getroot().findtext("{http://www.w3.org/2000/svg}desc")
    except (UnidentifiedImageError, ElementTree.ParseError, OSError):
        return None
    return str(found).strip() or None if found else None


def _png_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.verify()
        return image.size


def _svg_size(path: Path) -> tuple[int, int]:
    """Width and height, in whichever unit; from the view box where the root does not say."""
    root = ElementTree.parse(path).getroot()
    found = [re.match(r"[\d.]+", root.get(name, "")) for name in ("width", "height")]
    if all(found):
        width, height = (float(match.group()) for match in found if match)
    else:
        _, _, width, height = (
            float(word) for word in re.split(r"[\s,]+", root.get("viewBox", "0 0 4 3").strip())
        )
    return max(1, round(width)), max(1, round(height))
