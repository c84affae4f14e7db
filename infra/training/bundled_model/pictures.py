"""Which pictures of which packages are for training and which for evaluation; no package is used for both."""

from pathlib import Path

from bundled_model.sources import ADMIN_LTE, CREATIVE, FOODS, MATERIAL_KIT, Sources, installed

# photo4 shows a boat.
ADMIN_LTE_PHOTOS = ("boxed-bg.jpg", "photo[123].*", "prod-*.jpg", "user*.jpg")

FOOLBOX_KINDS = {
    "imagenet_00_243.jpg": "dog",
    "imagenet_06_609.jpg": "automobile",
    "imagenet_07_609.jpg": "automobile",
    "imagenet_14_129.jpg": "bird",
    "imagenet_15_99.jpg": "bird",
    "imagenet_16_251.jpg": "dog",
    "imagenet_17_22.jpg": "bird",
}
FOOD_BIRDS = ("M008", "M014", "N001", "N007", "N011", "N012", "N013", "N014", "N015", "N016")
"""Living birds among the photos of foods. Others of M and N repeat them, or show eggs."""

SCIKIT_IMAGE_OTHERS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "logo.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)


def training_photos(sources: Sources) -> list[Path]:
    """Photos of streets, rooms, people and things, from two designs of web pages (MIT)."""
    material_kit, admin_lte = sources.npm(MATERIAL_KIT), sources.npm(ADMIN_LTE) / "dist" / "img"
    named = [path for pattern in ADMIN_LTE_PHOTOS for path in admin_lte.glob(pattern)]
    return sorted([*material_kit.rglob("*.jpg"), *named])


def photos_of_kinds(sources: Sources) -> dict[Path, str]:
    """Photos of the ten kinds with their labels."""
    foolbox, foods = sources.pypi("foolbox") / "data", sources.npm(FOODS) / "assets"
    return {
        installed("skimage") / "data" / "chelsea.png": "cat",
        **{foolbox / name: label for name, label in FOOLBOX_KINDS.items()},
        **{foods / f"{name}.jpeg": "bird" for name in FOOD_BIRDS},
    }


def photos_of_others(sources: Sources) -> list[Path]:
    """Photos of none of the ten kinds, each once: foods, fish, cattle, tools, towers, people, the moon."""
    kinds = photos_of_kinds(sources)
    paths = [
        *(path for path in (sources.npm(FOODS) / "assets").glob("*.jpeg") if path.name[0] not in "MN"),
        *(path for path in (sources.pypi("foolbox") / "data").glob("imagenet_*.jpg") if path not in kinds),
        *(sources.npm(CREATIVE) / "dist" / "assets" / "img").rglob("fullsize/*.jpg"),
        sources.npm(CREATIVE) / "dist" / "assets" / "img" / "bg-masthead.jpg",
        *(sources.pypi("gradio") / "media_assets" / "images" / name for name in ("groot.jpeg", "tower.jpg")),
        *(installed("skimage") / "data" / name for name in SCIKIT_IMAGE_OTHERS),
        *(installed("sklearn") / "datasets" / "images" / name for name in ("china.jpg", "flower.jpg")),
        installed("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg",
    ]
    return list({path.read_bytes(): path for path in sorted(paths, reverse=True)}.values())[::-1]
