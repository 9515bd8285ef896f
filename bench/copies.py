"""How well a perceptual hash tells copies from different images: `python bench/copies.py <folder of images> [images]`."""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageEnhance

from lethe.data.copies import NEAR


def compressed(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def cropped(image: Image.Image, pixels: int) -> Image.Image:
    width, height = image.size
    return image.crop((pixels, pixels, width - pixels, height - pixels)).resize(image.size)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 60": lambda image: compressed(image, 60),
    "JPEG, quality 30": lambda image: compressed(image, 30),
    "resized to 3/4 and back": lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4)).resize(image.size),
    "brighter by 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "cropped by 1 pixel": lambda image: cropped(image, 1),
    "cropped by 3 pixels": lambda image: cropped(image, 3),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main(folder: str, number: int = 1000) -> None:
    """Print how many pairs of different images, and of copies, differ in at most NEAR bits."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    chosen = np.random.default_rng(0).permutation(len(files))[:number]
    images = [Image.open(files[i]).convert("RGB") for i in chosen]
    hashes(images[:1])  # its first call imports SciPy
    started = time.perf_counter()
    own = hashes(images)
    print(f"{(time.perf_counter() - started) / len(images) * 1e3:.2f} ms an image")
    pairs = np.bitwise_count(own[:, None] ^ own[None])[np.triu_indices(len(own), 1)]
    print(f"different images: {(pairs <= NEAR).sum():,} of {len(pairs):,} pairs")
    for name, copy in COPIES.items():
        print(f"{name}: {100 * (np.bitwise_count(hashes([copy(image) for image in images]) ^ own) <= NEAR).mean():.1f} %")


def hashes(images: list[Image.Image]) -> np.ndarray:
    """[N] hashes of 64 bits, as `lethe.data.copies` computes them."""
    return np.stack([np.packbits(imagehash.phash(image).hash) for image in images]).view(np.uint64)[:, 0]


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
