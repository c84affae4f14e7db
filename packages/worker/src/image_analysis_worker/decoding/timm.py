"""Makes inputs for timm's models as timm itself does, from the `pretrained_cfg` in their config.json.

timm's own code needs torch and torchvision, which no decoder loads.
"""

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet; used if the configuration states none."""


def is_timm(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is one of timm's."""
    return isinstance(config.get("pretrained_cfg"), dict) or config.get("model_type") == "timm_wrapper"


class TimmProcessor:
    """An image processor with the interface of transformers' ones."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read a config.json of timm.

        Raises:
            ValueError: it asks for something that is not implemented here.
        """
        stated = config.get("pretrained_cfg") or {}
        channels, height, width = stated.get("input_size") or (3, 224, 224)
        crop_mode = stated.get("crop_mode") or "center"
        self._is_squashed = crop_mode == "squash"
        if channels != 3 or crop_mode not in ("center", "squash") or (height != width and not self._is_squashed):
            raise ValueError(f"timm's crop_mode {crop_mode} to {channels} x {height} x {width} is not implemented")
        scale = stated.get("crop_pct") or 0.875
        self._resized = floor(width / scale), floor(height / scale)
        self._resample = Image.Resampling[str(stated.get("interpolation") or "bicubic").upper()]
        self._mean, self._std = (
            np.array(_spread(stated.get(name) or usual), np.float32).reshape(3, 1, 1)
            for name, usual in (("mean", _MEAN), ("std", _STD))
        )
        self.size = {"height": self._resized[1], "width": self._resized[0]}
        self.crop_size = {"height": height, "width": width}

    def __call__(
        self, images: Image.Image, *, return_tensors: str, do_rescale: bool = True, do_normalize: bool = True
    ) -> dict[str, NDArray[Any]]:
        """Make a batch of one, (1, 3, H, W)."""
        del return_tensors  # arrays of numpy, always
        values: NDArray[Any] = np.asarray(self._crop(self._resize(images))).transpose(2, 0, 1)
        if do_rescale:
            values = values.astype(np.float32) / 255
        if do_normalize:
            values = (values - self._mean) / self._std
        return {"pixel_values": values[np.newaxis]}

    def _resize(self, image: Image.Image) -> Image.Image:
        size = self._resized
        if not self._is_squashed:
            # The shorter side gets its size; the longer one is rounded down.
            shorter_px, longer_px = min(image.size), max(image.size)
            new_px = int(size[0] * longer_px / shorter_px)
            size = (size[0], new_px) if image.width < image.height else (new_px, size[0])
        return image if image.size == size else image.resize(size, self._resample)

    def _crop(self, image: Image.Image) -> Image.Image:
        """Cut out the middle; what lies outside of the image is black."""
        width, height = self.crop_size["width"], self.crop_size["height"]
        if image.width < width or image.height < height:
            padded = Image.new("RGB", (max(image.width, width), max(image.height, height)))
            padded.paste(image, ((padded.width - image.width) // 2, (padded.height - image.height) // 2))
            image = padded
        # Python rounds halves to even, and so does timm.
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


def _spread(values: Sequence[float]) -> Sequence[float]:
    """Use a single value for every channel."""
    return list(values) * 3 if len(values) == 1 else values
