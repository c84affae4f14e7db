"""Augments a batch before a training step, so that its images look like all kinds of photos.

Crops of any size and aspect, borders, mirror images, colors, gray, blur, noise and JPEG artifacts.
"""

from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MEAN, STD = 0.5, 0.5
"""The values of the detector's training, which the image processor uses too."""

BLUR_PX = 7
SHIFT_PX = 2


def normalize(images: Tensor) -> Tensor:
    """Turn colors from 0 to 1, (B, 3, H, W), into the network's input."""
    return (images - MEAN) / STD


def augment(images: Tensor, *, smallest_crop: float) -> Tensor:
    """Turn uint8 images (B, 3, side, side) into varied ones with colors from 0 to 1."""
    varied = _jitter_colors(_crop(images.float() / 255, smallest_crop))
    varied = _blur(varied, share=0.12)
    varied = _add_noise(varied, share=0.06).clamp_(0, 1)
    return _recompress(varied, share=0.1)


def mirror(images: Tensor, is_mirrored: Tensor) -> Tensor:
    """Mirror those images (B, 3, h, w) for which `is_mirrored` (B,) is true."""
    return torch.where(is_mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def shift(images: Tensor) -> Tensor:
    """Shift images (B, 3, side, side) by up to 2 px; what comes in at the edge is the image's reflection."""
    b, _, side, _ = images.shape
    padded = F.pad(images.float(), [SHIFT_PX] * 4, mode="reflect").to(images.dtype)
    y, x = torch.randint(0, 2 * SHIFT_PX + 1, (2, b, 1)) + torch.arange(side)
    return padded[torch.arange(b)[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def sharpen(images: Tensor, may_be: Tensor, share: float) -> Tensor:
    """Sharpen a share of those images (B, 3, h, w) for which `may_be` (B,) is true, and give them fine noise.

    Training images have 32 px, so enlarged ones lack the details that photos have at the network's side.
    """
    chosen = may_be & (torch.rand(len(images)) < share)
    count = int(chosen.sum())
    smooth = F.avg_pool2d(F.pad(images[chosen], [1] * 4, mode="replicate"), 3, 1)
    strength, noise = (_uniform(count, low, high).view(-1, 1, 1, 1) for low, high in ((0.5, 3), (0, 0.04)))
    sharp = images[chosen] + strength * (images[chosen] - smooth)
    images[chosen] = (sharp + noise * torch.randn_like(sharp)).clamp_(0, 1)
    return images


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def _crop(images: Tensor, smallest_crop: float) -> Tensor:
    """Crop at random, mirror half of the images, turn a few, and give one in eight a border."""
    b = len(images)
    side = _uniform(b, smallest_crop, 1).sqrt()
    stretch = _uniform(b, -0.35, 0.35).exp().sqrt()
    wide, high = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    zoomed_out = torch.rand(b) < 1 / 8
    wide = torch.where(zoomed_out, _uniform(b, 1, 1.7), wide)
    high = torch.where(zoomed_out, _uniform(b, 1, 1.7), high)
    x = (1 - wide).abs() * _uniform(b, -1, 1)
    y = (1 - high).abs() * _uniform(b, -1, 1)
    sign = torch.where(torch.rand(b) < 0.5, -1.0, 1.0)
    angle = torch.where(torch.rand(b) < 0.2, _uniform(b, -0.3, 0.3), torch.zeros(b))
    theta = torch.stack(
        [wide * sign * angle.cos(), -high * angle.sin(), x, wide * sign * angle.sin(), high * angle.cos(), y], 1
    ).view(b, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    mode = "bicubic" if torch.rand(()) < 0.5 else "bilinear"
    padding = "reflection" if torch.rand(()) < 0.5 else "border"
    sampled = F.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)
    outside = (grid.abs() > 1).any(-1)[:, None] & (zoomed_out & (torch.rand(b) < 0.7)).view(b, 1, 1, 1)
    return torch.where(outside, _border_colors(b), sampled).clamp_(0, 1)


def _border_colors(count: int) -> Tensor:
    """White, black, a gray or any color: (B, 3, 1, 1)."""
    kind = torch.randint(0, 4, (count, 1))
    gray, color = torch.rand(count, 1).expand(-1, 3), torch.rand(count, 3)
    fill = torch.where(kind == 0, 1.0, torch.where(kind == 1, 0.0, torch.where(kind == 2, gray, color)))
    return fill.view(count, 3, 1, 1)


def _jitter_colors(images: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and the balance of colors; make one in ten gray."""
    b = len(images)
    gain = _uniform(b, -0.25, 0.25).exp().view(b, 1, 1, 1)
    contrast = _uniform(b, 0.75, 1.3).view(b, 1, 1, 1)
    saturation = torch.where(torch.rand(b) < 0.1, torch.zeros(b), _uniform(b, 0.6, 1.4)).view(b, 1, 1, 1)
    balance = 1 + 0.04 * torch.randn(b, 3, 1, 1)
    center = images.mean((1, 2, 3), keepdim=True)
    images = ((images - center) * contrast + center) * gain * balance
    gray = images.mean(1, keepdim=True)
    return gray + (images - gray) * saturation


def _blur(images: Tensor, share: float) -> Tensor:
    chosen = torch.rand(len(images)) < share
    if not chosen.any():
        return images
    blurred = images[chosen]
    offsets = torch.arange(BLUR_PX) - BLUR_PX // 2
    sigma = _uniform(len(blurred), 0.5, 2.5)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    planes = blurred.reshape(1, -1, *blurred.shape[2:])
    for shape, padding in (((-1, 1, BLUR_PX, 1), (BLUR_PX // 2, 0)), ((-1, 1, 1, BLUR_PX), (0, BLUR_PX // 2))):
        padded = F.pad(planes, (padding[1], padding[1], padding[0], padding[0]), mode="replicate")
        planes = F.conv2d(padded, kernel.view(shape), groups=len(kernel))
    images[chosen] = planes.view_as(blurred)
    return images


def _add_noise(images: Tensor, share: float) -> Tensor:
    chosen = torch.rand(len(images)) < share
    images[chosen] += torch.randn_like(images[chosen]) * _uniform(int(chosen.sum()), 0.01, 0.08).view(-1, 1, 1, 1)
    return images


def _recompress(images: Tensor, share: float) -> Tensor:
    for index in (torch.rand(len(images)) < share).nonzero().flatten().tolist():
        pixels = (images[index].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(torch.randint(15, 80, ())))
        with Image.open(file) as image:
            images[index] = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return images
