"""Cartoon faces of nobody, drawn by a program: the pictures of the synthetic dataset.

Nothing is downloaded or taken from a photograph: every face is a few ellipses and lines whose places and
colours come from a random number generator.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw

SIZE = 64  # width and height of a picture

_CANVAS = 2 * SIZE  # drawn at twice the size, then halved: Pillow's shapes have no smooth edges
_MIDDLE = _CANVAS / 2
_JPEG_QUALITY = 87  # with this and the noise, files have KFER's 2 to 3 kB
_NOISE = 15  # the most a value is changed by
_NOISE_TILES = 8

Colour = tuple[int, int, int]


def _palette(codes: str) -> list[Colour]:
    """Colours by their hexadecimal codes."""
    return [(code[0], code[1], code[2]) for code in map(bytes.fromhex, codes.split())]


_SKINS = _palette("FAE0CB F1CBAD E2B48F CC9970 A8734E 784F37")
_HAIRS = _palette("1C181A 3A261E 603C24 986230 CEA862 8C8C92")
_IRISES = _palette("342218 5C3E24 3E6048 405C84")
_INK: Colour = (40, 26, 28)
_LIPS: Colour = (168, 62, 66)
_TEAR: Colour = (176, 216, 250)
_BLUSH: Colour = (236, 106, 110)


class _Expression(NamedTuple):
    """What a face does: each from -1 or 0 to 1; 0 is a calm face."""

    smile: float = 0  # mouth: frown to smile
    gape: float = 0  # mouth: how far it is open
    anger: float = 0  # brows: outer ends down to inner ends down
    lift: float = 0  # brows: lowered to raised
    stare: float = 0  # eyes: nearly shut to wide open
    blush: float = 0
    tears: float = 0


# What is not listed here gets the calm face.
_EXPRESSIONS = {
    "affectionate": _Expression(smile=0.7, stare=-0.3, blush=0.5),
    "amused": _Expression(smile=1, gape=0.6, lift=0.5, stare=-0.6),
    "angry": _Expression(smile=-0.7, gape=0.2, anger=1, lift=-0.7, stare=0.2, blush=0.4),
    "anxious": _Expression(smile=-0.5, anger=-0.7, lift=0.4, stare=0.5),
    "ashamed": _Expression(smile=-0.4, anger=-0.6, stare=-0.7, blush=1),
    "bored": _Expression(smile=-0.1, lift=-0.2, stare=-0.8),
    "depressed": _Expression(smile=-0.8, anger=-0.5, lift=-0.3, stare=-0.6),
    "disappointed": _Expression(smile=-0.6, anger=-0.5, stare=-0.3),
    "disgusted": _Expression(smile=-0.9, anger=0.6, lift=-0.5, stare=-0.6),
    "fearful": _Expression(smile=-0.6, gape=0.6, anger=-0.9, lift=0.9, stare=1),
    "fluttered": _Expression(smile=0.5, lift=0.6, stare=0.6, blush=0.9),
    "fulfilled": _Expression(smile=0.8, stare=-0.5),
    "guilty": _Expression(smile=-0.5, anger=-0.8, lift=0.2, stare=-0.4),
    "happy": _Expression(smile=1, gape=0.5, lift=0.3, blush=0.2),
    "jealous": _Expression(smile=-0.5, anger=0.7, stare=-0.4),
    "moved": _Expression(smile=0.4, anger=-0.6, lift=0.3, tears=0.7),
    "passionate": _Expression(smile=0.5, gape=0.4, anger=0.5, stare=0.6, blush=0.4),
    "peaceful": _Expression(smile=0.5, stare=-0.9),
    "sad": _Expression(smile=-0.9, anger=-0.9, lift=0.1, stare=-0.3, tears=1),
    "smitten": _Expression(smile=0.8, lift=0.4, stare=0.4, blush=1),
    "surprised": _Expression(gape=1, lift=1, stare=1),
    "sympathetic": _Expression(smile=-0.2, anger=-0.8, stare=-0.1),
    "upset": _Expression(smile=-0.8, gape=0.3, anger=0.4, stare=0.1, tears=0.4),
}


class _Person(NamedTuple):
    """What somebody looks like in every picture."""

    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    wall: Colour
    width: float  # half the width of the head
    height: float  # half its height
    fringe: float  # how far the hair comes down the forehead
    long_hair: bool
    glasses: bool


def draw_face(person: str, picture: str, emotions: Iterable[str]) -> bytes:
    """A JPEG of a face, 64 x 64 pixels, RGB.

    The same arguments always give the same bytes; the order of the emotions does not count.

    Args:
        person: decides who it is: head, hair, skin, clothes, and the wall behind.
        picture: decides what differs from picture to picture of one person: pose, light and noise.
        emotions: names of the emotions to show, mixed where they are several.
    """
    chance = random.Random(picture)
    image = Image.new("RGB", (_CANVAS, _CANVAS))
    x, y = _MIDDLE + chance.uniform(-5, 5), _MIDDLE + chance.uniform(-4, 6)
    gaze = chance.uniform(-2, 2), chance.uniform(-1, 2)
    _Artist(ImageDraw.Draw(image), _person(person), _mixed(emotions), x, y).head(gaze)
    file = io.BytesIO()
    _lit(image.reduce(2), chance).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _person(name: str) -> _Person:
    chance = random.Random(name)
    return _Person(
        skin=_varied(chance.choice(_SKINS), chance),
        hair=_varied(chance.choice(_HAIRS), chance),
        iris=chance.choice(_IRISES),
        clothes=_any_colour(chance),
        wall=_any_colour(chance),
        width=chance.uniform(34, 42),
        height=chance.uniform(43, 51),
        fringe=chance.uniform(0.25, 0.75),
        long_hair=chance.random() < 0.5,
        glasses=chance.random() < 0.15,
    )


def _mixed(emotions: Iterable[str]) -> _Expression:
    # Sorted, because a sum of floats depends on their order.
    shown = [_EXPRESSIONS.get(emotion, _Expression()) for emotion in sorted(emotions)] or [_Expression()]
    return _Expression(*(sum(values) / len(shown) for values in zip(*shown, strict=True)))


class _Artist(NamedTuple):
    """Draws a person with an expression, the middle of the head at x and y."""

    draw: ImageDraw.ImageDraw
    person: _Person
    expression: _Expression
    x: float
    y: float

    def head(self, gaze: tuple[float, float]) -> None:
        draw, person, x, y = self.draw, self.person, self.x, self.y
        width, height = person.width, person.height
        shade = _between(person.skin, _INK, 0.2)
        draw.rectangle((0, 0, _CANVAS, _CANVAS), fill=person.wall)
        self.oval(x, y - 6, width + 8, height + 5, person.hair)
        if person.long_hair:
            draw.rectangle((x - width - 8, y - 6, x + width + 8, y + height + 10), fill=person.hair)
        draw.rectangle((x - 15, y + 20, x + 15, _CANVAS), fill=shade)
        self.oval(x, y + height + 34, 62, 32, person.clothes)
        for side in (-1, 1):
            self.oval(x + side * width, y + 4, 7, 11, shade)
        self.oval(x, y, width, height, person.skin)
        top = (x - width - 2, y - height - 4, x + width + 2, y + height * (person.fringe - 0.6))
        draw.pieslice(top, 180, 360, fill=person.hair)
        if blush := self.expression.blush:
            for side in (-1, 1):
                self.oval(x + side * width * 0.6, y + 15, 9, 6, _between(person.skin, _BLUSH, 0.6 * blush))
        for side in (-1, 1):
            self.eye(side, x + side * width * 0.46, y - 2, gaze)
        draw.line([(x + 1, y + 4), (x - 4, y + 15), (x + 4, y + 16)], fill=shade, width=3)
        self.mouth(y + height * 0.56)

    def eye(self, side: int, x: float, y: float, gaze: tuple[float, float]) -> None:
        draw, expression = self.draw, self.expression
        opening = 7 + 5 * expression.stare
        self.oval(x, y, 10, opening, (250, 248, 244), outline=_INK)
        if opening > 4:
            radius = min(opening - 1, 5.5)
            self.oval(x + gaze[0], y + gaze[1], radius, radius, self.person.iris)
            self.oval(x + gaze[0], y + gaze[1], radius / 2, radius / 2, (12, 10, 10))
        else:
            draw.line((x - 9, y, x + 9, y), fill=_INK, width=4)
        brow, slant = y - 16 - 6 * expression.lift, 6 * expression.anger
        draw.line((x - side * 10, brow + slant, x + side * 11, brow - slant), fill=self.person.hair, width=5)
        if expression.tears > 0.3:
            self.oval(x + side * 5, y + 12 + 6 * expression.tears, 3, 8 * expression.tears, _TEAR)
        if self.person.glasses:
            self.oval(x, y, 15, 14, None, outline=_INK)

    def mouth(self, y: float) -> None:
        expression = self.expression
        half = self.person.width * (0.46 - 0.18 * expression.gape * (1 - abs(expression.smile)))
        bend, gape = 9 * expression.smile, 13 * expression.gape

        def curve(drop: float) -> list[tuple[float, float]]:
            steps = [step / 4 for step in range(-4, 5)]
            heights = [y + bend / 2 - bend * step**2 + drop * math.sqrt(1 - step**2) for step in steps]
            return [(self.x + half * step, height) for step, height in zip(steps, heights, strict=True)]

        if gape:
            self.draw.polygon(curve(-gape / 2) + curve(gape)[::-1], fill=(92, 22, 30))
            self.draw.line(curve(gape), fill=_LIPS, width=3)
        self.draw.line(curve(-gape / 2), fill=_LIPS, width=4)

    def oval(
        self,
        x: float,
        y: float,
        across: float,
        down: float,
        fill: Colour | None,
        outline: Colour | None = None,
    ) -> None:
        """An ellipse around x and y, which goes so far to either side."""
        box = (x - across, y - down, x + across, y + down)
        self.draw.ellipse(box, fill=fill, outline=outline, width=2 if outline else 0)


def _lit(image: Image.Image, chance: random.Random) -> Image.Image:
    """The picture with light from one side, and with noise."""
    light = _light(chance.randrange(4))
    image = Image.blend(image, ImageChops.multiply(image, light), chance.uniform(0.1, 0.45))
    noise = ImageChops.offset(
        _noise(chance.randrange(_NOISE_TILES)), chance.randrange(SIZE), chance.randrange(SIZE)
    )
    return ImageChops.add(image, noise, offset=chance.randint(-8, 12) - _NOISE)


@cache
def _light(turns: int) -> Image.Image:
    gradient = Image.linear_gradient("L").resize((SIZE, SIZE)).rotate(90 * turns)
    return Image.merge("RGB", (gradient, gradient, gradient))


@cache
def _noise(number: int) -> Image.Image:
    """Grey grain from 0 to twice ``_NOISE``, the same in every process."""
    values = random.Random(number).randbytes(SIZE * SIZE)
    grain = Image.frombytes("L", (SIZE, SIZE), bytes(value * (2 * _NOISE + 1) // 256 for value in values))
    return Image.merge("RGB", (grain, grain, grain))


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _varied(colour: Colour, chance: random.Random) -> Colour:
    return _between(colour, _any_colour(chance), 0.08)


def _any_colour(chance: random.Random) -> Colour:
    return chance.randint(50, 220), chance.randint(50, 220), chance.randint(50, 220)
