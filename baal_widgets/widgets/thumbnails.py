"""Pictures for the page: decoded and encoded anew, so that no byte of a file reaches the browser as it is."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

SIDE = 288  # pixels: sharp on a tile of 144 CSS pixels, also on a fine screen
LARGE = 1280  # pixels a side of an image shown alone
EXACT = 96  # up to this side a picture is sent as it is, without loss
KEPT_BYTES = 100_000_000
WORKERS = 4


@dataclass(frozen=True)
class Thumbnail:
    """A picture as it is sent: its MIME type and bytes, or the reason why there is none.

    `whole` tells that nothing of the image is left out, so that a larger one would show no more.
    """

    type: str = ""
    data: bytes = b""
    whole: bool = True
    reason: str = ""


def encode(picture: Image.Image, side: int = SIDE) -> Thumbnail:
    """PNG, exact, when the picture is small, else JPEG of at most `side` pixels a side."""
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    target = io.BytesIO()
    if max(picture.size) <= EXACT:
        picture.save(target, "PNG", compress_level=1)
        return Thumbnail("image/png", target.getvalue())
    shrink = min(1, side / max(picture.size))
    size = max(1, round(shrink * picture.width)), max(1, round(shrink * picture.height))
    small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)  # by whole factors first
    small.save(target, "JPEG", quality=88 if side <= SIDE else 92)
    return Thumbnail("image/jpeg", target.getvalue(), whole=False)


class Thumbnails:
    """Encodes pictures, several at once, and keeps the latest 100 MB of them.

    `picture(card, side)` gives the image of a card; what it raises is told in the picture's place.
    """

    def __init__(self, picture: Callable[[int, int], Image.Image]) -> None:
        self._picture = picture
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], Thumbnail] = OrderedDict()
        self._coming: dict[tuple[int, int], Future[Thumbnail]] = {}
        self._size = 0
        self._workers: ThreadPoolExecutor | None = None

    def prepare(self, cards: Iterable[int], side: int = SIDE) -> None:
        """Begin to encode pictures that will be asked for, in the background."""
        with self._lock:
            self._workers = self._workers or ThreadPoolExecutor(WORKERS, "baal-widgets pictures")
            for key in [(card, side) for card in cards]:
                if key not in self._kept and key not in self._coming:
                    self._coming[key] = self._workers.submit(self._make, *key)

    def of(self, cards: Sequence[int], side: int = SIDE) -> list[Thumbnail]:
        """The thumbnails of some cards, in their order."""
        self.prepare(cards, side)
        return [self._one((card, side)) for card in cards]

    def _one(self, key: tuple[int, int]) -> Thumbnail:
        with self._lock:
            kept, coming = self._kept.get(key), self._coming.get(key)
        if kept or not coming:  # a large picture may push out what has just come
            return kept or self._make(*key)
        try:
            made = coming.result()
        finally:
            with self._lock:
                self._coming.pop(key, None)
        self._keep(key, made)
        return made

    def _make(self, card: int, side: int) -> Thumbnail:
        try:
            return encode(self._picture(card, side), side)
        except Exception as error:  # whatever a dataset or a file comes up with: the other pictures are fine
            return Thumbnail(reason=f"{error}" or type(error).__name__)

    def _keep(self, key: tuple[int, int], made: Thumbnail) -> None:
        with self._lock:
            if made.reason or key in self._kept:  # a file that was missing may be back the next time
                return
            self._kept[key] = made
            self._size += len(made.data)
            while self._size > KEPT_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1].data)
