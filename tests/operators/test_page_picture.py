"""The picture of the page in the README: made here, and as the page is."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from operators.start_page import StartPage
from support.samples import CHELSEA

PICTURE = Path(__file__).parents[2] / "infra" / "page.jpg"
SIZE_PX = (1200, 1200)
MAX_BYTES = 100_000


def test_readme_shows_a_small_picture_of_the_page(open_start: Callable[..., StartPage]) -> None:
    """To renew the picture, copy `page.jpg` from pytest's folder of this test over it."""
    width_px, height_px = SIZE_PX
    start = open_start(viewport={"width": width_px, "height": height_px}, reduced_motion="reduce")
    start.choose(CHELSEA)
    expect(start.card("chelsea.png").locator(".best")).to_contain_text("cat")
    start.page.evaluate("scrollTo(0, 0)")
    start.page.mouse.move(0, 0)
    made = start.screenshots / "page.jpg"
    start.page.screenshot(path=made, type="jpeg", quality=65)

    for picture in (made, PICTURE):
        assert picture.stat().st_size < MAX_BYTES
        with Image.open(picture) as image:
            assert image.size == SIZE_PX
    assert f"]({PICTURE.parent.name}/{PICTURE.name})" in (PICTURE.parents[1] / "README.md").read_text()
