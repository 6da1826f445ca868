"""Ten drawn scenes, one a class: what `cifar predict` sends where there is no test set.

They prove that the service works; they say little about its accuracy, since the network learned from photographs.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from cifar.client.pictures import Pixels


def draw_samples() -> Pixels:
    """Draw one scene a class: uint8 (10, 32, 32, 3), the same at every call."""
    images = np.stack([draw_scene(name) for name in SCENES])
    return Pixels(tuple(f"drawing ({name})" for name in SCENES), images)


def draw_scene(name: str, side: int = 32) -> NDArray[np.uint8]:
    """Draw the scene of one class and reduce it to uint8 (side, side, 3)."""
    large = _add_grain(SCENES[name]().canvas, seed=list(SCENES).index(name))
    return np.asarray(large.resize((side, side), Image.Resampling.LANCZOS))


# Below, all lengths are pixels of a canvas of 256 × 256, eight for each one that the network sees, and colours are RGB.

_SIDE = 256
Colour = tuple[int, int, int]
Point = tuple[int, int]


def _airplane() -> "_Scene":
    scene = _Scene((66, 122, 196), (186, 214, 238))
    scene.ellipses((240, 244, 250), (240, 244, 250), (40, 214, 70, 16), (110, 226, 80, 18), (216, 60, 44, 9), blur=14)
    scene.polygon((206, 210, 218), (120, 126, 140), [(126, 116), (160, 116), (104, 58), (88, 58)])
    scene.polygon((70, 92, 160), (40, 56, 110), [(34, 116), (66, 116), (40, 56), (18, 56)])
    scene.ellipses((252, 252, 254), (140, 146, 160), (128, 128, 112, 21))
    scene.polygon((196, 200, 210), (120, 126, 140), [(24, 124), (60, 124), (22, 146), (4, 146)])
    scene.polygon((226, 230, 236), (110, 116, 130), [(116, 134), (168, 134), (96, 206), (72, 206)])
    scene.ellipses((150, 154, 164), (64, 68, 78), (132, 164, 22, 9))
    scene.polygon((60, 74, 100), (40, 50, 70), [(212, 116), (228, 119), (232, 124), (210, 124)])
    scene.ellipses((80, 92, 120), (70, 80, 104), *((x, 121, 4, 4) for x in range(70, 206, 14)))
    return scene


def _automobile() -> "_Scene":
    scene = _street()
    scene.ellipses((40, 40, 44), (30, 30, 32), (128, 200, 118, 12))
    scene.polygon((214, 40, 36), (150, 18, 20), [(58, 124), (92, 76), (168, 74), (204, 124)])
    scene.polygon((196, 214, 228), (70, 88, 104), [(74, 122), (98, 86), (126, 85), (126, 122)])
    scene.polygon((196, 214, 228), (70, 88, 104), [(134, 122), (134, 85), (163, 84), (188, 122)])
    scene.rectangle((232, 58, 50), (116, 10, 14), (10, 118, 246, 186), radius=24)
    scene.lines((120, 12, 16), (100, 8, 12), 3, [(130, 122), (130, 180)])
    scene.ellipses((255, 250, 220), (220, 200, 150), (236, 140, 9, 9))
    scene.ellipses((255, 170, 60), (200, 90, 30), (17, 142, 6, 10))
    scene.wheels(29, (64, 184), (194, 184))
    return scene


def _bird() -> "_Scene":
    scene = _foliage((150, 176, 104), (74, 112, 60))
    scene.polygon((118, 92, 66), (66, 48, 34), [(0, 206), (256, 190), (256, 208), (0, 226)])
    scene.polygon((84, 70, 60), (56, 46, 40), [(84, 146), (20, 200), (6, 234), (34, 228), (110, 178)])
    scene.lines((60, 50, 40), (50, 40, 34), 6, [(122, 180), (118, 206)], [(144, 180), (146, 204)])
    scene.ellipses((222, 122, 60), (238, 220, 200), (135, 136, 61, 54))
    scene.polygon((120, 104, 90), (66, 54, 46), [(150, 96), (96, 92), (60, 160), (52, 184), (140, 150)])
    scene.ellipses((104, 88, 76), (96, 80, 66), (172, 73, 36, 37))
    scene.ellipses((222, 118, 56), (214, 108, 48), (184, 95, 22, 25))
    scene.polygon((236, 190, 70), (170, 120, 40), [(202, 62), (242, 78), (202, 86)])
    scene.eyes(8, (184, 64))
    return scene


def _cat() -> "_Scene":
    scene = _Scene((190, 170, 150), (120, 98, 84))
    coat, dark = (176, 160, 140), (96, 82, 70)
    scene.ellipses(coat, dark, (128, 254, 98, 86))
    for mirrored in (False, True):
        scene.polygon(coat, dark, [(42, 120), (50, 14), (116, 72)], mirrored)
        scene.polygon((214, 160, 150), (150, 100, 92), [(58, 92), (62, 40), (94, 72)], mirrored)
    scene.ellipses((190, 174, 152), (130, 114, 98), (128, 138, 92, 84))
    stripes = [[(128, 60), (128, 96)], [(104, 62), (108, 94)], [(152, 62), (148, 94)]]
    stripes += [[(40, 146), (72, 150)], [(216, 146), (184, 150)], [(46, 174), (76, 170)], [(210, 174), (180, 170)]]
    scene.lines((84, 70, 60), (76, 62, 52), 9, *stripes)
    scene.ellipses((244, 238, 230), (214, 202, 190), (106, 184, 30, 24), (150, 184, 30, 24))
    scene.ellipses((210, 216, 96), (150, 160, 60), (90, 130, 23, 18), (166, 130, 23, 18))
    scene.ellipses((14, 14, 12), (14, 14, 12), (90, 130, 8, 17), (166, 130, 8, 17))
    scene.polygon((214, 130, 126), (180, 96, 92), [(112, 160), (144, 160), (128, 178)])
    whiskers = [[(100, 184), (20, 172)], [(100, 192), (24, 202)], [(156, 184), (236, 172)], [(156, 192), (232, 202)]]
    scene.lines((250, 248, 244), (240, 236, 230), 2, *whiskers)
    return scene


def _deer() -> "_Scene":
    scene = _foliage((96, 116, 76), (52, 70, 42))
    scene.rectangle((140, 150, 80), (104, 116, 54), (0, 196, 256, 256))
    coat, dark = (182, 128, 78), (118, 78, 46)
    scene.legs(coat, (80, 54, 34), [70, 92, 150, 170], (150, 236), 9)
    scene.ellipses(coat, dark, (117, 145, 71, 33))
    scene.ellipses((244, 238, 226), (220, 206, 188), (52, 134, 10, 18))
    scene.polygon(coat, dark, [(142, 128), (182, 62), (206, 72), (184, 160)])
    scene.ellipses(coat, dark, (164, 62, 20, 8), (216, 54, 18, 8))
    scene.polygon((196, 142, 90), (130, 88, 54), [(174, 56), (206, 52), (242, 86), (236, 98), (188, 88)])
    scene.ellipses((30, 24, 20), (24, 18, 16), (238, 92, 7, 7))
    antlers = [
        [(184, 54), (160, 22), (166, 2)],
        [(168, 32), (144, 26)],
        [(198, 52), (212, 20), (204, 0)],
        [(210, 28), (234, 14)],
    ]
    scene.lines((224, 204, 170), (170, 144, 110), 6, *antlers)
    scene.eyes(5, (204, 70))
    return scene


def _dog() -> "_Scene":
    scene = _foliage((130, 160, 90), (88, 122, 60))
    coat, dark = (206, 156, 92), (140, 94, 50)
    scene.ellipses((226, 190, 140), dark, (128, 260, 92, 90))
    scene.ellipses((218, 172, 108), (170, 122, 70), (128, 113, 74, 83))
    for mirrored in (False, True):
        ear = [(72, 44), (38, 62), (22, 120), (32, 172), (62, 160), (78, 96)]
        scene.polygon((150, 98, 52), (92, 56, 30), ear, mirrored)
    scene.polygon((240, 222, 196), (222, 196, 164), [(118, 36), (138, 36), (146, 120), (110, 120)])
    scene.ellipses((246, 234, 216), (206, 180, 150), (128, 160, 46, 48))
    scene.rectangle((226, 110, 116), (190, 76, 84), (114, 180, 142, 228), radius=13)
    scene.ellipses(coat, (230, 208, 180), (106, 172, 26, 20), (150, 172, 26, 20))
    scene.ellipses((60, 52, 50), (16, 14, 14), (128, 138, 24, 17))
    scene.lines((70, 46, 34), (60, 40, 30), 4, [(128, 152), (128, 182)])
    scene.eyes(12, (96, 100), (160, 100))
    return scene


def _frog() -> "_Scene":
    scene = _foliage((128, 110, 78), (84, 68, 46))
    scene.rectangle((116, 96, 66), (76, 60, 42), (0, 206, 256, 256))
    coat, dark = (124, 176, 58), (58, 96, 30)
    scene.ellipses((100, 150, 48), (50, 84, 26), (42, 186, 40, 42), (214, 186, 40, 42))
    scene.ellipses(coat, dark, (128, 162, 82, 70))
    scene.ellipses((220, 222, 150), (190, 190, 120), (128, 191, 52, 39))
    scene.ellipses((140, 194, 66), (88, 138, 42), (128, 119, 92, 53))
    scene.ellipses((140, 194, 66), (104, 156, 50), (76, 66, 31, 31), (180, 66, 31, 31))
    scene.ellipses((70, 110, 34), (60, 96, 30), (128, 88, 12, 7), (60, 126, 9, 6), (190, 118, 10, 6))
    scene.ellipses((226, 190, 70), (200, 150, 40), (72, 64, 21, 21), (184, 64, 21, 21))
    scene.ellipses((12, 12, 10), (12, 12, 10), (72, 64, 15, 10), (184, 64, 15, 10))
    scene.lines((48, 72, 24), (40, 60, 20), 6, [(58, 130), (90, 150), (128, 156), (166, 150), (198, 130)])
    for mirrored in (False, True):
        limb = [(84, 176), (62, 236), (36, 246), (100, 246), (106, 190)]
        scene.polygon((120, 170, 56), (70, 112, 36), limb, mirrored)
    return scene


def _horse() -> "_Scene":
    scene = _Scene((150, 186, 222), (214, 226, 234))
    scene.ellipses((70, 100, 60), (70, 100, 60), (30, 120, 70, 34), (150, 124, 80, 26), (240, 116, 60, 36), blur=6)
    scene.rectangle((124, 158, 70), (84, 120, 44), (0, 138, 256, 256))
    coat, dark = (150, 84, 44), (84, 42, 22)
    scene.polygon((40, 26, 20), (24, 16, 12), [(44, 98), (20, 120), (10, 184), (28, 190), (52, 126)])
    scene.legs(dark, (30, 22, 20), [58, 82, 146, 168], (140, 238), 13)
    scene.ellipses(coat, dark, (72, 118, 38, 36), (112, 122, 62, 32), (152, 118, 34, 36))
    scene.polygon(coat, dark, [(128, 106), (176, 34), (210, 48), (206, 74), (182, 138)])
    scene.polygon((44, 28, 20), (30, 20, 14), [(116, 100), (146, 44), (178, 22), (190, 30), (164, 62), (140, 108)])
    scene.polygon(coat, (110, 58, 30), [(176, 36), (204, 30), (250, 82), (244, 100), (226, 100), (184, 72)])
    scene.polygon(coat, dark, [(182, 38), (188, 12), (200, 34)])
    scene.ellipses((70, 44, 34), (46, 28, 22), (240, 92, 10, 9))
    scene.eyes(5, (206, 54))
    return scene


def _ship() -> "_Scene":
    scene = _Scene((140, 178, 216), (214, 226, 236))
    scene.ellipses((246, 248, 250), (246, 248, 250), (60, 40, 60, 12), (200, 70, 60, 10), blur=12)
    scene.rectangle((62, 104, 142), (28, 60, 92), (0, 166, 256, 256))
    scene.lines((90, 90, 94), (60, 60, 64), 4, [(176, 60), (176, 128)], [(60, 74), (60, 128)])
    scene.rectangle((252, 252, 250), (196, 200, 206), (58, 104, 178, 146))
    scene.rectangle((250, 250, 250), (206, 210, 214), (92, 78, 168, 108))
    scene.lines((70, 84, 104), (56, 68, 88), 7, [(98, 90), (164, 90)], [(66, 118), (172, 118)])
    scene.rectangle((214, 70, 48), (150, 40, 30), (106, 44, 132, 80))
    scene.rectangle((30, 30, 34), (24, 24, 28), (106, 40, 132, 52))
    scene.polygon((52, 66, 92), (22, 28, 44), [(8, 138), (250, 132), (222, 190), (30, 190)])
    scene.polygon((176, 52, 44), (130, 32, 30), [(26, 182), (226, 182), (222, 192), (30, 192)])
    scene.ellipses((226, 236, 242), (226, 236, 242), (40, 194, 36, 4), (128, 195, 70, 3), (212, 193, 34, 5), blur=2)
    scene.lines((120, 156, 184), (120, 156, 184), 3, *([(x, y), (x + 40, y)] for x, y in _WAVES), blur=2)
    return scene


def _truck() -> "_Scene":
    scene = _street()
    scene.ellipses((40, 40, 44), (30, 30, 32), (128, 212, 122, 10))
    scene.rectangle((60, 60, 64), (36, 36, 40), (14, 168, 240, 190))
    scene.rectangle((250, 248, 244), (190, 190, 192), (8, 34, 168, 172))
    scene.rectangle((220, 130, 40), (190, 100, 30), (8, 100, 168, 122))
    scene.lines((150, 150, 152), (130, 130, 134), 3, [(8, 36), (168, 36)], [(166, 36), (166, 170)])
    cab = [(174, 78), (220, 78), (238, 124), (248, 132), (248, 184), (174, 184)]
    scene.polygon((50, 104, 190), (22, 54, 116), cab)
    scene.polygon((196, 214, 228), (70, 88, 104), [(186, 88), (214, 88), (229, 124), (186, 124)])
    scene.ellipses((255, 250, 220), (220, 200, 150), (243, 150, 6, 8))
    scene.wheels(23, (46, 190), (98, 190), (208, 190))
    return scene


# In the order of the class indices.
SCENES: dict[str, Callable[[], "_Scene"]] = {
    "airplane": _airplane,
    "automobile": _automobile,
    "bird": _bird,
    "cat": _cat,
    "deer": _deer,
    "dog": _dog,
    "frog": _frog,
    "horse": _horse,
    "ship": _ship,
    "truck": _truck,
}

_WAVES = [(10, 214), (90, 222), (180, 212), (30, 238), (130, 242), (206, 236)]


class _Scene:
    """A canvas that fills shapes with vertical gradients: light falls from above.

    Each method takes the colour of the shape's top and of its bottom; `blur` softens the edges (clouds, foam, what
    is out of focus).
    """

    def __init__(self, top: Colour, bottom: Colour) -> None:
        self.canvas = _blend(top, bottom, (_SIDE, _SIDE))

    def polygon(self, top: Colour, bottom: Colour, points: list[Point], mirrored: bool = False) -> None:
        if mirrored:
            points = [(_SIDE - x, y) for x, y in points]
        mask, pen = _new_mask()
        pen.polygon(points, fill=255)
        self._fill(mask, top, bottom)

    def ellipses(self, top: Colour, bottom: Colour, *ellipses: tuple[int, int, int, int], blur: float = 0) -> None:
        """Each is (centre x, centre y, radius x, radius y)."""
        mask, pen = _new_mask()
        for x, y, radius_x, radius_y in ellipses:
            pen.ellipse((x - radius_x, y - radius_y, x + radius_x, y + radius_y), fill=255)
        self._fill(mask, top, bottom, blur)

    def rectangle(self, top: Colour, bottom: Colour, box: tuple[int, int, int, int], radius: float = 0) -> None:
        mask, pen = _new_mask()
        pen.rounded_rectangle(box, radius, fill=255)
        self._fill(mask, top, bottom)

    def lines(self, top: Colour, bottom: Colour, width: int, *lines: list[Point], blur: float = 0) -> None:
        mask, pen = _new_mask()
        for line in lines:
            pen.line(line, fill=255, width=width, joint="curve")
        self._fill(mask, top, bottom, blur)

    def wheels(self, radius: int, *centres: tuple[int, int]) -> None:
        self.ellipses((36, 36, 38), (14, 14, 16), *((x, y, radius, radius) for x, y in centres))
        self.ellipses((206, 208, 212), (120, 122, 128), *((x, y, radius // 2, radius // 2) for x, y in centres))

    def eyes(self, radius: int, *centres: tuple[int, int]) -> None:
        self.ellipses((26, 18, 14), (12, 8, 6), *((x, y, radius, radius) for x, y in centres))
        glint = max(2, radius // 3)
        self.ellipses((255, 255, 255), (240, 240, 240), *((x + glint, y - glint, glint, glint) for x, y in centres))

    def legs(self, top: Colour, bottom: Colour, xs: list[int], span: tuple[int, int], width: int) -> None:
        start, end = span
        for x in xs:
            points: list[Point] = [(x - width, start), (x + width, start), (x + width // 2, end), (x - width // 2, end)]
            self.polygon(top, bottom, points)

    def _fill(self, mask: Image.Image, top: Colour, bottom: Colour, blur: float = 0) -> None:
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur))
        if box := mask.getbbox():
            self.canvas.paste(_blend(top, bottom, (box[2] - box[0], box[3] - box[1])), box, mask.crop(box))


def _foliage(light: Colour, dark: Colour) -> _Scene:
    """Leaves far behind the subject: blurred spots of light and shadow."""
    scene = _Scene(light, dark)
    spots = np.random.default_rng(0).integers((0, 0, 8, 8), (_SIDE, _SIDE, 34, 30), size=(36, 4)).tolist()
    for number, (x, y, radius_x, radius_y) in enumerate(spots):
        colour = light if number % 2 else dark
        scene.ellipses(colour, colour, (x, y, radius_x, radius_y), blur=9)
    return scene


def _street() -> _Scene:
    scene = _Scene((176, 200, 224), (214, 222, 228))
    houses = [(0, 84, 46, 50), (90, 96, 40, 40), (180, 80, 50, 54), (250, 92, 40, 44)]
    scene.ellipses((96, 116, 90), (84, 98, 78), *houses, blur=10)
    scene.rectangle((142, 142, 144), (98, 98, 102), (0, 132, _SIDE, _SIDE))
    scene.lines((206, 206, 200), (200, 200, 194), 5, [(0, 244), (100, 244)], [(150, 244), (256, 244)])
    return scene


def _new_mask() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", (_SIDE, _SIDE))
    return mask, ImageDraw.Draw(mask)


def _blend(top: Colour, bottom: Colour, size: tuple[int, int]) -> Image.Image:
    """A vertical gradient."""
    width, height = size
    steps = np.linspace(0, 1, height)[:, np.newaxis]  # (height, 1)
    column = np.array(top) * (1 - steps) + np.array(bottom) * steps  # (height, 3)
    return Image.fromarray(np.repeat(column[:, np.newaxis], width, axis=1).astype(np.uint8))


def _add_grain(image: Image.Image, seed: int) -> Image.Image:
    """Add what a flat drawing lacks most: texture, broad (fur, leaves) and fine (the sensor's noise)."""
    random = np.random.default_rng(seed)
    broad = Image.fromarray(random.normal(0, 6, (48, 48)).astype(np.float32)).resize((_SIDE, _SIDE))
    fine = random.normal(0, 14, (_SIDE, _SIDE, 3))
    pixels = np.asarray(image) + np.asarray(broad)[..., np.newaxis] + fine
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
