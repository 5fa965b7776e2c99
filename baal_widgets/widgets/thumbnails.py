"""Pictures for the page: decoded and encoded anew, so that no byte of a file reaches the browser as it is."""

from __future__ import annotations

import io

from PIL import Image

SIDE = 288  # pixels: sharp on a tile of 144 CSS pixels, also on a fine screen
EXACT = 96  # up to this side a picture is sent as it is, without loss


def encode(picture: Image.Image) -> tuple[str, bytes]:
    """The MIME type and bytes of a picture: PNG, exact, when it is small, else JPEG of at most 288 pixels a side."""
    picture = picture.convert("RGB")
    target = io.BytesIO()
    if max(picture.size) <= EXACT:
        picture.save(target, "PNG")
        return "image/png", target.getvalue()
    picture.thumbnail((SIDE, SIDE))
    picture.save(target, "JPEG", quality=88)
    return "image/jpeg", target.getvalue()
