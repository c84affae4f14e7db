"""What trying a model's image processor shows: how its numbers follow from pixels, and when JPEGs may be reduced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_analysis_worker.decoding.decode import DRAFT_FACTOR

MAX_INPUT_GROWTH = 16
"""The largest input, as a multiple of the pixels of the model's usual input. If a processor neither crops nor resizes
to a fixed size, the image decides how large the input is, and so how much memory the model takes."""

USUAL_INPUT_PX = 224
"""Used if neither the configuration nor the image processor states an input size."""

MAX_FIT_ERROR = 1e-4
"""How far the engine's normalization may be from the image processor's."""

MAX_REDUCED_LEVELS = 5.0
"""How far, on average, inputs from the reduced and from the full trial picture may be apart, in levels of 255.
Processors that average are 2 to 4 apart; NEAREST is 13 apart, and a crop without a resize 64."""

Processor = Callable[..., Any]


@dataclass(frozen=True)
class Preparation:
    """How a model's inputs are made."""

    max_input_pixels: int
    reduced_px: int | None
    """The input size for which a JPEG may be decoded at a fraction of its size; None if it may not."""
    scale: Sequence[float] | None
    """The processor's normalization for each channel: `scale * level + offset`. None if it does more than that: then
    decoders give its own float32 values, and levels from 0 to 255 as uint8 otherwise."""
    offset: Sequence[float] | None
    size: Sequence[int] | None
    """Height and width of every input; None if they depend on the image."""
    resize: Sequence[int] | None
    """Width, height and Pillow's filter, if the processor's levels are those of Pillow's resize alone. That takes half
    the time. None if the processor does more: then it makes the levels itself."""

    @property
    def dtype(self) -> str:
        return "float32" if self.scale is None else "uint8"

    def normalize(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn what decoders give, (B, 3, H, W), into the processor's numbers."""
        if self.scale is None or self.offset is None:
            return batch
        scale, offset = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (self.scale, self.offset))
        return np.asarray(batch * scale + offset)

    def make(self, processor: Processor, image: Image.Image) -> NDArray[Any]:
        """Make one input, (3, H, W), as `dtype` says."""
        if self.resize is None:
            return prepare(processor, image, self.dtype)
        return _resize(image, self.resize)


def _resize(image: Image.Image, resize: Sequence[int]) -> NDArray[np.uint8]:
    width_px, height_px, resample = resize
    resized = image.resize((width_px, height_px), Image.Resampling(resample))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def prepare(processor: Processor, image: Image.Image, dtype: str, *, is_raw: bool = False) -> NDArray[Any]:
    """Make one input, (3, H, W): levels if they are `is_raw` or uint8, and the processor's own numbers otherwise."""
    options = {"do_rescale": False, "do_normalize": False} if is_raw or dtype == "uint8" else {}
    values: NDArray[Any] = np.asarray(processor(images=image, return_tensors="np", **options)["pixel_values"][0])
    return values.astype(dtype, copy=False)


def examine(
    processor: Processor, model_sides_px: Sequence[int], *, max_image_pixels: int, allows_reduced: bool
) -> Preparation:
    """Try a processor on pictures; `model_sides_px` is what the model's configuration states."""
    sizes, crops = (
        [side for side in dict(getattr(processor, name, None) or {}).values() if side] for name in ("size", "crop_size")
    )
    largest_px = max([*sizes, *crops, *model_sides_px], default=USUAL_INPUT_PX)
    input_px = max(sizes, default=largest_px)
    wide, high = (prepare(processor, Image.new("RGB", size), "float32") for size in ((64, 48), (48, 64)))
    scale, offset = _fit(processor) or (None, None)
    is_reducible = (
        allows_reduced
        and _TRIAL_WIDTH * _TRIAL_HEIGHT * input_px**2 <= max_image_pixels
        and _is_reducible(processor, input_px)
    )
    return Preparation(
        max_input_pixels=MAX_INPUT_GROWTH * largest_px**2,
        reduced_px=input_px if is_reducible else None,
        scale=scale,
        offset=offset,
        size=wide.shape[1:] if wide.shape == high.shape else None,
        resize=None if scale is None else _find_resize(processor),
    )


_TRIAL_WIDTH, _TRIAL_HEIGHT = 6, 4
"""Sides of the trial picture, as multiples of the input: it is decoded at half its size. Both are even, because half of
an odd side is rounded, which moves each pixel a little."""


_TRIAL_SIDES_PX = ((200, 120), (120, 200), (500, 400), (3, 3), (40, 3), (1, 7))
"""A photo's sides, and sides that some processors take for a number of channels."""


def _make_trial(width_px: int, height_px: int) -> Image.Image:
    """Make smooth noise with details of 4 px, of which no two neighbors are alike."""
    small = np.random.default_rng(0).integers(0, 256, (height_px // 4, width_px // 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC)


_FIT_SIDES_PX = ((512, 512), (512, 384), (384, 512))
"""A processor that pads what is not square does so after the normalization: then one scale and offset do not fit."""


def _fit(processor: Processor) -> tuple[list[float], list[float]] | None:
    """Find the scale and offset of each channel; None if the processor does more, or less, than that."""
    pictures = [_make_trial(*sides_px) for sides_px in _FIT_SIDES_PX]
    try:
        levels, raw, values = (
            [prepare(processor, picture, dtype, is_raw=is_raw) for picture in pictures]
            for dtype, is_raw in (("uint8", False), ("float64", True), ("float32", False))
        )
    except Exception:  # noqa: BLE001
        # A processor without these options; its own numbers are used.
        return None
    if [x.shape for x in levels] != [y.shape for y in values] or not all(map(np.array_equal, levels, raw)):
        return None
    scales, offsets = [], []
    for x, y in zip(_join_channels(levels), _join_channels(values), strict=True):
        if (variance := x.var()) == 0:
            return None
        scale = float(((x - x.mean()) * (y - y.mean())).mean() / variance)
        offset = float(y.mean() - scale * x.mean())
        if abs(scale * x + offset - y).max() > MAX_FIT_ERROR or abs(scale) < MAX_FIT_ERROR:
            return None
        scales.append(scale)
        offsets.append(offset)
    return scales, offsets


def _join_channels(inputs: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Put the numbers of all inputs, each (3, H, W), in one row for each channel."""
    return np.concatenate([values.reshape(len(values), -1).astype(np.float64) for values in inputs], axis=1)


def _find_resize(processor: Processor) -> tuple[int, int, int] | None:
    """Return width, height and filter if Pillow's resize alone makes the processor's levels; None if it does not."""
    try:
        size = dict(processor.size)  # type: ignore[attr-defined]
        resize = size["width"], size["height"], int(processor.resample)  # type: ignore[attr-defined]
        for sides_px in _TRIAL_SIDES_PX:
            picture = _make_trial(200, 120).resize(sides_px)
            if not np.array_equal(_resize(picture, resize), prepare(processor, picture, "uint8")):
                return None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return resize


def _is_reducible(processor: Processor, input_px: int) -> bool:
    """Return whether the processor makes the same input of a JPEG in half its size: it must resize and average."""
    buffer = BytesIO()
    _make_trial(_TRIAL_WIDTH * input_px, _TRIAL_HEIGHT * input_px).save(buffer, "JPEG", quality=95)
    inputs = []
    for reduced_px in (None, input_px):
        with Image.open(buffer) as image:
            if reduced_px is not None:
                image.draft("RGB", (reduced_px * DRAFT_FACTOR, reduced_px * DRAFT_FACTOR))
            inputs.append(prepare(processor, image.convert("RGB"), "float32"))
    full, reduced = inputs
    if full.shape != reduced.shape:
        return False
    level = np.ptp(full) / 255
    return bool(abs(full - reduced).mean() <= MAX_REDUCED_LEVELS * level)
