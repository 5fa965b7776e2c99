"""Damaged images, as many as you like: `python benchmarks/damaged_images.py --mutants 20000`.

Each is a sound picture of one of several formats with some bytes changed, cut, repeated or put elsewhere. Opening it
must give a picture or a `ValueError` that says why not: nothing else, and in bounded time and memory.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from baal_widgets.images import open_image


def sound():
    """Pictures of every format and mode that people have: `{name: bytes}`."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, (48, 64), dtype=np.uint16))
    clear = colour.convert("RGBA")
    clear.putalpha(128)
    upright = Image.Exif()
    upright[0x0112] = 6
    frames = {"save_all": True, "append_images": [colour.rotate(90 * turn) for turn in (1, 2, 3)]}
    made = {
        "png": (colour, "PNG", {}),
        "png with a palette": (colour.quantize(16), "PNG", {}),
        "png with alpha": (clear, "PNG", {}),
        "png, 16 bit": (deep, "PNG", {}),
        "png, animated": (colour, "PNG", frames),
        "jpeg, turned": (colour, "JPEG", {"exif": upright}),
        "jpeg, progressive": (colour, "JPEG", {"progressive": True}),
        "jpeg, cmyk": (colour.convert("CMYK"), "JPEG", {}),
        "webp": (clear, "WEBP", {}),
        "webp, animated": (colour, "WEBP", frames),
        "gif, animated": (colour, "GIF", frames),
        "bmp": (colour, "BMP", {}),
        "tiff": (colour, "TIFF", {"compression": "tiff_lzw"}),
        "tiff, 16 bit": (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
    }
    told = {}
    for name, (image, kind, options) in made.items():
        target = io.BytesIO()
        image.save(target, kind, **options)
        told[name] = target.getvalue()
    return told


def mutant(data, rng):
    """The bytes with one to eight things wrong, more often near the beginning, where formats say what follows."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if len(data) < 2:
            break
        at = min(int(len(data) * rng.random() ** rng.choice((1, 3))), len(data) - 1)
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1"))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randint(1, 64)]
            case 4:
                data[at:at] = data[at : at + rng.randint(1, 256)]
            case 5:
                data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


def run(mutants, seed=0, progress=lambda done: None):
    """What came of opening that many: counts, the longest time (s) and how much memory more was needed (MB)."""
    rng, pictures, found = random.Random(seed), list(sound().values()), Counter()
    errors, longest = Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        for data in pictures:
            path.write_bytes(data)
            open_image(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for place in range(mutants):
            path.write_bytes(mutant(pictures[place % len(pictures)], rng))
            begun = time.perf_counter()
            try:
                image = open_image(path, side=rng.choice((None, 64)))
                found["shown" if image.mode == "RGB" else "of a wrong mode"] += 1
            except ValueError as error:
                found["refused with a reason" if str(path) in str(error) else "refused without a name"] += 1
                errors[type(error.__cause__).__name__] += 1
            except BaseException as error:
                found[f"escaped: {type(error).__name__}"] += 1
            longest = max(longest, time.perf_counter() - begun)
            if place % 1000 == 999:
                progress(place + 1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {**found, "longest, s": round(longest, 3), "memory grown by, MB": round(grown, 1), "causes": dict(errors)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    found = run(options.mutants, options.seed, lambda done: print(f"{done} images", file=sys.stderr))
    print(json.dumps({**found, "seconds": round(time.perf_counter() - begun, 1)}, indent=1))
    return 1 if set(found) - {"shown", "refused with a reason", "longest, s", "memory grown by, MB", "causes"} else 0


if __name__ == "__main__":
    sys.exit(main())
