"""Pictures for the page: time and bytes a thumbnail beside the bare codec, and how long the caller is held up."""

from __future__ import annotations

import io
import time

import numpy as np
from PIL import Image

from baal_widgets.widgets.thumbnails import SIDE, Thumbnails, encode
from benchmarks.harness import Comparison, whatever


def photo(width, height):
    """A picture as smooth and as noisy as photographs are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8))


def bare(picture):
    """No thumbnail takes less: what of the pixels is needed, and the codec with our quality."""
    small = picture.resize(
        (SIDE, round(SIDE * picture.height / picture.width)), Image.Resampling.BICUBIC, reducing_gap=2
    )
    target = io.BytesIO()
    small.save(target, "JPEG", quality=88)
    return target.getvalue()


def encoding(device, width, height):
    picture = photo(width, height)
    return {"baal_widgets": lambda: encode(picture).data, "PIL": lambda: bare(picture)}


def sizes_of(device, width, height):
    picture = photo(width, height)
    return {"baal_widgets": lambda: len(encode(picture).data), "PIL": lambda: len(bare(picture))}


def preparing(device, width, height, pictures):
    """Ask for pictures to be made ready, which must return at once; encoding them on the spot is the other way."""
    picture = photo(width, height)

    def asked():
        thumbnails = Thumbnails(lambda card, side: picture)
        began = time.perf_counter()
        thumbnails.prepare(range(pictures))
        told = time.perf_counter() - began
        assert len(thumbnails.of(range(pictures))) == pictures
        return told

    def on_the_spot():
        began = time.perf_counter()
        for _ in range(pictures):
            encode(picture)
        return time.perf_counter() - began

    return {"baal_widgets": asked, "on the spot": on_the_spot}


COMPARISONS = [
    Comparison(
        "encode",
        "a thumbnail of {width} x {height} pixels",
        "PIL",
        0.9,
        encoding,
        sizes={"width": 2048, "height": 1536},
        quick={"width": 320, "height": 256},
        agree=whatever,
    ),
    Comparison(
        "bytes",
        "bytes of a thumbnail of {width} x {height} pixels",
        "PIL",
        0.95,
        sizes_of,
        sizes={"width": 2048, "height": 1536},
        quick={"width": 320, "height": 256},
        measures="told",
        unit="B",
        agree=whatever,
    ),
    Comparison(
        "caller held up",
        "asking for {pictures} thumbnails of {width} x {height} pixels",
        "on the spot",
        10,
        preparing,
        sizes={"width": 2048, "height": 1536, "pictures": 24},
        quick={"width": 320, "height": 256, "pictures": 3},
        measures="told",
        agree=whatever,
    ),
]
