"""Images of none of the ten kinds, drawn or cut out of photos, from which the network learns to be unsure."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

SIDE_PX = 98

Draw = Callable[[np.random.Generator], Image.Image]


def draw_outliers(count: int, seed: int) -> np.ndarray:
    """Draw textures, noise, shapes and text: (N, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(DRAWINGS[number % len(DRAWINGS)](rng)) for number in range(count)])


def cut_outliers(photos: Iterable[Path], count: int, seed: int) -> np.ndarray:
    """Cut crops of any size out of photos, equally often from each photo: (N, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    images = []
    for path in photos:
        with Image.open(path) as image:
            image.thumbnail((512, 512))
            images.append(image.convert("RGB"))
    return np.stack([np.asarray(_cut(images[number % len(images)], rng)) for number in range(count)])


def cut_objects(materials: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cut smooth shapes out of `materials` and put them on white, black or colors: objects of no known kind."""
    rng = np.random.default_rng(seed)
    return np.stack([_object(materials[rng.integers(len(materials))], rng) for _ in range(count)])


def shuffle_tiles(images: Tensor) -> Tensor:
    """Take pictures (B, 3, 32, 32) apart into 16 or 64 tiles and put them together in any order."""
    b, channels, side, _ = images.shape
    tiles = 2 ** int(torch.randint(2, 4, ()))
    px = side // tiles
    cut = images.view(b, channels, tiles, px, tiles, px).permute(0, 2, 4, 1, 3, 5).reshape(b, tiles**2, -1)
    order = torch.rand(b, tiles**2).argsort(1)[..., None].expand_as(cut)
    cut = cut.gather(1, order).view(b, tiles, tiles, channels, px, px)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(b, channels, side, side)


def magnify_details(images: Tensor) -> Tensor:
    """Enlarge a detail of 6 px, too small to show what it belongs to, of each picture (B, 3, 32, 32)."""
    detail_px = 6
    corners = torch.randint(0, images.shape[-1] - detail_px, (len(images), 2)).tolist()
    details = [image[:, y : y + detail_px, x : x + detail_px] for image, (y, x) in zip(images, corners, strict=True)]
    large = torch.nn.functional.interpolate(torch.stack(details).float(), images.shape[-1], mode="bicubic")
    return large.clamp(0, 255).to(torch.uint8)


def _cut(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.15, 1)
    wide, high = max(8, int(image.width * share)), max(8, int(image.height * min(1, share * rng.uniform(0.8, 1.25))))
    x, y = int(rng.integers(0, image.width - wide + 1)), int(rng.integers(0, max(1, image.height - high + 1)))
    return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC, box=(x, y, x + wide, min(y + high, image.height)))


def _object(material: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three copies of a shape with some bulges, each lit from one side, with a transparent background."""
    ground = (255, 255, 255) if rng.random() < 0.5 else (0, 0, 0) if rng.random() < 0.4 else _color(rng)
    picture = np.full((SIDE_PX, SIDE_PX, 3), ground, np.float32)
    waves = [(n, rng.normal() * 0.5 / n, rng.uniform(0, 2 * np.pi)) for n in range(2, 7)]
    stretch, copies = np.exp(rng.uniform(-1.1, 1.1)), int(rng.choice([1, 1, 2, 3]))
    turn, y_x = rng.uniform(0, np.pi), np.mgrid[-1:1:98j, -1:1:98j]
    for _ in range(copies):
        y, x = (axis - rng.uniform(-0.6, 0.6) * (copies > 1) for axis in y_x)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        along, across = along * np.sqrt(stretch), across / np.sqrt(stretch)
        angle = np.arctan2(across, along)
        radius = rng.uniform(0.5, 0.8) / np.sqrt(copies) * np.exp(sum(a * np.cos(n * angle + p) for n, a, p in waves))
        depth = radius - np.hypot(along, across)
        opaque = np.clip(depth * 20, 0, 1)[..., None]
        light = np.clip(0.75 + 0.4 * along / radius.clip(0.1), 0.3, 1.2)[..., None]
        picture = picture * (1 - opaque) + material * light * opaque
    return picture.clip(0, 255).astype(np.uint8)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _noise(rng: np.random.Generator) -> Image.Image:
    """Noise of one scale or of several, gray or colored."""
    channels = int(rng.choice([1, 3]))
    total = np.zeros((SIDE_PX, SIDE_PX, channels), np.float32)
    scales = rng.choice([2, 3, 5, 8, 14, 24, 49, 98], size=int(rng.integers(1, 5)), replace=False)
    for scale in scales:
        grid = rng.normal(size=(scale, scale, channels)).astype(np.float32)
        planes = [
            np.asarray(Image.fromarray(grid[..., c]).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
            for c in range(channels)
        ]
        total += np.stack(planes, -1) / np.sqrt(scale)
    total = total / (np.abs(total).max() + 1e-6) * rng.uniform(0.1, 1)
    low, high = np.array(_color(rng)), np.array(_color(rng))
    mixed = low + (high - low) * (total + 1) / 2
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _gradient(rng: np.random.Generator) -> Image.Image:
    """A plain color or a gradient, straight or round."""
    y, x = np.mgrid[0:1:98j, 0:1:98j]
    angle, bend = rng.uniform(0, 2 * np.pi), rng.choice([0, 0, 1])
    ramp = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5
    if bend:
        ramp = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
    low, high = np.array(_color(rng)), np.array(_color(rng))
    mixed = low + (high - low) * (ramp * rng.choice([0, 0.5, 1]))[..., None]
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _waves(rng: np.random.Generator) -> Image.Image:
    """Stripes, checks, rings and their sums, as woven, printed or built things show them."""
    y, x = np.mgrid[-1:1:98j, -1:1:98j]
    total = np.zeros_like(x)
    for _ in range(rng.integers(1, 4)):
        angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(2, 40), rng.uniform(0, 2 * np.pi)
        along = np.hypot(x, y) if rng.random() < 0.2 else x * np.cos(angle) + y * np.sin(angle)
        wave = np.sin(along * frequency + phase)
        total += np.sign(wave) if rng.random() < 0.5 else wave
    total = total / np.abs(total).max()
    if rng.random() < 0.4:
        total = np.sign(total)
    low, high = np.array(_color(rng)), np.array(_color(rng))
    mixed = low + (high - low) * ((total + 1) / 2)[..., None] + rng.normal(0, rng.choice([0, 8, 20]), (98, 98, 3))
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _shapes(rng: np.random.Generator) -> Image.Image:
    """Circles, boxes, polygons and lines, few or many, sharp or blurred."""
    image = _gradient(rng) if rng.random() < 0.6 else _noise(rng)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.choice([1, 2, 4, 8, 20, 60]))):
        points = [tuple(point) for point in rng.uniform(-15, 113, (int(rng.integers(3, 7)), 2)).tolist()]
        left, top = rng.uniform(-20, 90, 2).tolist()
        box = [left, top, left + rng.uniform(3, 60), top + rng.uniform(3, 60)]
        kind = rng.integers(0, 5)
        if kind == 0:
            draw.ellipse(box, fill=_color(rng))
        elif kind == 1:
            draw.rectangle(box, fill=_color(rng), outline=_color(rng))
        elif kind == 2:
            draw.polygon(points, fill=_color(rng))
        elif kind == 3:
            draw.line(points, fill=_color(rng), width=int(rng.integers(1, 6)))
        else:
            draw.ellipse(box, outline=_color(rng), width=int(rng.integers(1, 8)))
    return image.filter(ImageFilter.GaussianBlur(int(rng.choice([0, 0, 1, 3, 8]))))


def _text(rng: np.random.Generator) -> Image.Image:
    """A page, a sign or a table of letters and digits."""
    paper = rng.random() < 0.6
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (255, 255, 255) if paper else _color(rng))
    draw = ImageDraw.Draw(image)
    size_px = int(rng.choice([7, 9, 12, 18, 30, 60]))
    font, ink = ImageFont.load_default(size_px), (20, 20, 20) if paper else _color(rng)
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789   .,:-/()%")
    for top in range(int(rng.integers(-4, 10)), SIDE_PX, int(size_px * rng.uniform(1.1, 1.8))):
        line = "".join(rng.choice(letters, size=int(rng.integers(1, 1 + 240 // size_px))))
        draw.text((float(rng.uniform(-10, 20)), top), line, fill=ink, font=font)
    return image.rotate(float(rng.choice([0, 0, 90, rng.uniform(-20, 20)])), fillcolor=(128, 128, 128))


def _chart(rng: np.random.Generator) -> Image.Image:
    """Bars, curves or dots on axes, as in a report or on a screen."""
    dark = rng.random() < 0.3
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (30, 30, 34) if dark else (250, 250, 250))
    draw, ink = ImageDraw.Draw(image), (220, 220, 220) if dark else (40, 40, 40)
    draw.line([(10, 5), (10, 88), (93, 88)], fill=ink)
    heights = rng.uniform(5, 80, int(rng.integers(3, 12)))
    step, kind, color = 80 / len(heights), rng.integers(0, 3), _color(rng)
    for number, height in enumerate(heights):
        x = 12 + number * step
        if kind == 0:
            draw.rectangle([x, 88 - height, x + step * 0.7, 87], fill=color)
        elif kind == 1:
            following = heights[min(number + 1, len(heights) - 1)]
            draw.line([(x, 88 - height), (x + step, 88 - following)], fill=color, width=2)
        else:
            draw.ellipse([x, 84 - height, x + 4, 88 - height], fill=_color(rng))
    return image


DRAWINGS: tuple[Draw, ...] = (_noise, _gradient, _waves, _shapes, _text, _chart, _noise, _shapes)
