"""Pixels: smooth shapes like anatomy, a few of each kind, and noise that is laid over them anew each time.

Making a shape takes milliseconds, adding noise to it a fraction of one: all slices differ, and cost little
more than their writing.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import get_encoder

from corpus.seeds import chance

Pixels = NDArray[np.uint16] | NDArray[np.uint8]
SHAPES = 8
"""Of each kind: from one end of the body part to the other."""
ENCODED = 2
"""Frames of each kind that are compressed; series take turns with them."""
_ENCODING = threading.Lock()
"""pylibjpeg-openjpeg 2.6 crashes when two threads encode at a time."""
_DENSE = 1.05
"""The organ in the middle, beside other tissue."""
_SPARE = 1 << 16
"""Noise is longer than a frame by this: where it begins makes the difference."""


@dataclass(frozen=True)
class Form:
    """What the pixels of a kind of image are like (PS3.3 C.7.6.3)."""

    look: str
    rows: int
    columns: int
    bits: int
    """Stored."""
    colour: bool = False

    @property
    def samples(self) -> int:
        return 3 if self.colour else 1

    @property
    def allocated(self) -> int:
        return 8 if self.bits <= 8 else 16

    @property
    def photometric(self) -> str:
        return "RGB" if self.colour else "MONOCHROME2"

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.samples * self.allocated // 8

    @property
    def dtype(self) -> np.dtype[np.uint16] | np.dtype[np.uint8]:
        return np.dtype(np.uint8) if self.allocated == 8 else np.dtype("<u2")


@dataclass(frozen=True)
class _Look:
    """Levels of a kind of image: air, tissue, the organs in it, bone, and how much noise."""

    air: float
    tissue: float
    organ: float
    bone: float
    noise: float

    @property
    def brightest(self) -> int:
        """No shape has a higher level."""
        return math.ceil(max(self.air, self.tissue * _DENSE, self.organ, self.bone))


_LOOKS = {
    "ct": _Look(24, 1064, 200, 1800, 16),  # Hounsfield units, with 1024 added
    "mr": _Look(12, 420, 760, 90, 14),
    "xray": _Look(300, 1800, 900, 3100, 24),
    "us": _Look(6, 70, 22, 160, 9),
    "mark": _Look(10, 120, 60, 220, 4),
}


def frame(seed: int, form: Form, position: float, number: int) -> Pixels:
    """The image at `position`, from 0 to 1, through the body part; `number` makes it differ from others."""
    shape = _shape(form, min(SHAPES - 1, int(position * SHAPES)))
    noise = _noise(seed, form)
    # Steps coprime to the spare length: no beginning comes again before all were used.
    begin = number * 7919 % _SPARE
    pixels: Pixels = np.add(shape, noise[begin : begin + shape.size].reshape(shape.shape))
    return pixels


def encoded(seed: int, form: Form, syntax: str) -> tuple[bytes, ...]:
    """Some frames in an encapsulated transfer syntax, by pydicom's encoders."""
    with _ENCODING:
        return _encoded(seed, form, syntax)


@lru_cache(maxsize=16)
def _encoded(seed: int, form: Form, syntax: str) -> tuple[bytes, ...]:
    encode = get_encoder(syntax).encode
    return tuple(
        encode(
            frame(seed, form, number / ENCODED, number).tobytes(),
            rows=form.rows,
            columns=form.columns,
            samples_per_pixel=form.samples,
            bits_allocated=form.allocated,
            bits_stored=form.bits,
            pixel_representation=0,
            number_of_frames=1,
            photometric_interpretation=form.photometric,
            planar_configuration=0,
        )
        for number in range(ENCODED)
    )


@lru_cache(maxsize=64)
def _shape(form: Form, number: int) -> Pixels:
    look = _LOOKS[form.look]
    # Small shapes would be nothing but edge; 24 pixels of one are enough to tell them apart.
    y = np.linspace(-1, 1, form.rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, form.columns, dtype=np.float32)
    along = number / (SHAPES - 1)
    girth = 0.72 + 0.18 * math.sin(math.pi * along)

    def ellipse(cx: float, cy: float, a: float, b: float) -> NDArray[np.float32]:
        """1 inside, 0 outside, with a soft border."""
        inside: NDArray[np.float32] = np.clip((1 - ((x - cx) / a) ** 2 - ((y - cy) / b) ** 2) * 12, 0, 1)
        return inside

    image = look.air + (look.tissue - look.air) * ellipse(0, 0, girth, girth * 0.7)
    for side in (-1, 1):
        organ = ellipse(side * 0.36, -0.05, 0.24 * girth, (0.2 + 0.25 * along) * girth)
        image += (look.organ - image) * organ
    image += (look.tissue * _DENSE - image) * ellipse(0.1, -0.12, 0.2, 0.16 + 0.1 * (1 - along)) * 0.9
    image += (look.bone - image) * ellipse(0, 0.36, 0.1, 0.11)
    if form.colour:
        image = np.stack([image, image * 0.96, image * 0.9], axis=-1)
    pixels: Pixels = np.ascontiguousarray(image, dtype=form.dtype)
    return pixels


@lru_cache(maxsize=16)
def _noise(seed: int, form: Form) -> Pixels:
    look = _LOOKS[form.look]
    dice = np.random.default_rng(chance(seed, "noise", form).getrandbits(64))
    noise = (
        np.abs(dice.standard_normal(form.frame_bytes * 8 // form.allocated + _SPARE, np.float32)) * look.noise
    )
    # With the brightest shape it has to stay within the bits stored (PS3.5 8.1.1).
    pixels: Pixels = np.minimum(noise, (1 << form.bits) - 1 - look.brightest).astype(form.dtype)
    return pixels
