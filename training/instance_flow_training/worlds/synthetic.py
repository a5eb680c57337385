# SPDX-License-Identifier: Apache-2.0
"""Labelled video of synthetic worlds: textured, lit, moving objects with exact masks, identities and classes.

A world is a pure function of a seed, a situation and a configuration: the same three give the same pixels in every
process, any frame can be rendered alone, and another image size shows the same world at another resolution. The outline
alone tells the class; colour and texture tell who is who. Masks are what is visible at the moment of the picture, at
half coverage or more; motion blur is in the image only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.declare import SIZE, check, setting
from instance_flow.structures import Image, IntArray, LabelMap
from instance_flow_training.targets import IGNORE
from instance_flow_training.worlds import layers, motion, outlines, textures
from instance_flow_training.worlds.cutouts import CutoutLibrary, FloatArray, cover
from instance_flow_training.worlds.layers import Layer
from instance_flow_training.worlds.motion import MOST_OBJECTS, Thing
from instance_flow_training.worlds.outlines import Outline
from instance_flow_training.worlds.situations import ENDLESS, REAL, TABLE

__all__ = [
    "ALL_SITUATIONS",
    "CLASS_NAMES",
    "CUTOUT_SIZE",
    "MOST_FRAMES",
    "MOST_RATE",
    "MOST_SEEDS",
    "REAL_SITUATIONS",
    "SITUATIONS",
    "Clip",
    "World",
    "WorldConfig",
    "generate_clip",
]

CLASS_NAMES: tuple[str, ...] = tuple(outlines.OBJECTS)
SITUATIONS: tuple[str, ...] = tuple(TABLE)
"""Those of training and of the benchmark, which take them in turn."""
ALL_SITUATIONS: tuple[str, ...] = (*SITUATIONS, *ENDLESS)
REAL_SITUATIONS: tuple[str, ...] = tuple(REAL)
"""Those of worlds of cut-outs."""
CUTOUT_SIZE = (0.18, 0.8)
"""``WorldConfig.object_size`` of worlds of cut-outs."""

MOST_SEEDS, MOST_FRAMES, MOST_RATE = 10**12, 10**6, 10_000
"""Bounds of settings that nobody reaches, but a mistyped number does."""

_GROUND_MARGIN = 1.5


@dataclass(frozen=True)
class WorldConfig:
    """What can be chosen about a world. Speeds are per picture and do not depend on the rate."""

    size: tuple[int, int] = setting((192, 320), "in pixels", 16, 16_384, parts=SIZE)
    frames: int = setting(30, "length of a clip; below about 16 some situations have no time to happen", 1, MOST_FRAMES)
    rate: float = setting(10.0, 'pictures per second, one third of it in "low_rate"', high=MOST_RATE, above=0)
    objects: tuple[int, int] = setting((2, 6), "in a clip", 1, MOST_OBJECTS, parts=("least", "most"))
    object_size: tuple[float, float] = setting(
        (0.14, 0.5),
        "extent as a fraction of the height, drawn log-uniformly; some situations cap it",
        high=1,
        above=0,
        parts=("smallest", "largest"),
    )
    blur: float = setting(0.35, "longest exposure as a fraction of a frame of time", 0, 1)
    noise: float = setting(5.0, "largest sensor noise, in grey levels", 0, 255)
    uniform: bool = setting(
        False, "all objects wear the same pattern and colours, so that only outline and motion tell who is who"
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("objects", "object_size"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name} is {[least, most]}; the first must be at most the second")


@dataclass(frozen=True)
class Clip:
    """A rendered world. rate: pictures per second.

    images: (T, H, W, 3) uint8 RGB.   labels: (T, H, W) int32, 0 = background, k + 1 = row k of class_ids (N,) int64.
    class_names: by class_id.
    """

    images: Image
    labels: LabelMap
    class_ids: IntArray
    seed: int
    situation: str
    rate: float
    class_names: tuple[str, ...] = CLASS_NAMES


class World:
    """A synthetic world. class_ids: (N,) int64, row k is the object with label k + 1. rate: pictures per second.

    Args:
        cutouts: real objects and grounds in place of made ones.
        furnished: take grounds with objects too, which are labelled as well; what lies beyond such a ground, where it
            is mirrored, has the label IGNORE. Otherwise only grounds without objects.
    """

    def __init__(
        self,
        seed: int,
        situation: str = "mixed",
        config: WorldConfig = WorldConfig(),
        cutouts: CutoutLibrary | None = None,
        furnished: bool = False,
    ) -> None:
        known = ALL_SITUATIONS if cutouts is None else REAL_SITUATIONS
        if situation not in known:
            raise ValueError(f"situation is {situation!r}: want one of {', '.join(known)}")
        self.seed, self.situation, self.config = seed, situation, config
        self.class_names = CLASS_NAMES if cutouts is None else cutouts.class_names
        self._cutouts = cutouts
        # By the name and not by its place in SITUATIONS, so that a new situation leaves the old worlds as they are.
        sequence = np.random.SeedSequence([seed, zlib.crc32(situation.encode())])
        script_seed, camera_seed, self._ground_seed = sequence.spawn(3)
        traits = (TABLE | ENDLESS if cutouts is None else REAL)[situation]
        height, width = config.size
        rng = np.random.default_rng(script_seed)
        self._script = motion.write_script(
            *(rng, traits, config.frames, width / height, config.objects, config.object_size),
            None if cutouts is None else cutouts.draw,
        )
        self._played = len(self._script.class_ids)
        self._picture = None if cutouts is None else cutouts.draw_ground(rng, empty=not furnished)
        ground_ids: IntArray = np.zeros(0, np.int64)
        if cutouts is not None and self._picture is not None:
            ground_ids = cutouts.picture(self._picture)[2][: MOST_OBJECTS - self._played]
        self.class_ids: IntArray = np.concatenate([self._script.class_ids, ground_ids])
        self.rate = config.rate / traits.step
        camera_rng = np.random.default_rng(camera_seed)
        self._exposure = float(config.blur * camera_rng.random())
        self._noise = float(config.noise * camera_rng.uniform(0.2, 1))
        light = camera_rng.uniform(0, 2 * np.pi)
        self._light = np.array([np.cos(light), np.sin(light)])
        self._shadow = float(camera_rng.uniform(0.15, 0.45))
        flicker = camera_rng.uniform(0, 2 * np.pi, 2)
        time = np.arange(config.frames)
        self._gains = 1 + 0.03 * np.sin(0.9 * time + flicker[0]) + 0.03 * np.sin(2.3 * time + flicker[1])
        self._grain_offsets = camera_rng.integers(0, 64, (config.frames, 2))
        self._textures: dict[int, Image] = {}
        self._sprites: dict[int, FloatArray] = {}
        self._ground: Image | None = None
        self._ground_labels: NDArray[np.uint8] | None = None

    def render(self, t: int) -> tuple[Image, NDArray[np.uint8]]:
        """Picture (H, W, 3) uint8 RGB and label map (H, W) uint8 of frame t, in any order of t."""
        if not 0 <= t < self.config.frames:
            raise ValueError(f"frame is {t}: this world has frames 0 .. {self.config.frames - 1}")
        picture, labels = self._render_ground(t)
        for row in self._script.order:
            played = row < self._played
            layer = self._render_cutout(row, t) if played and self._cutouts else self._render_thing(row, t)
            if layer is not None:
                layers.lay(picture, labels, layer, row + 1 if played else 0, self._shadow, self._light)
        layers.drop_fragments(labels, len(self.class_ids))
        return self._expose(picture, t), labels

    def _lay_out_ground(self) -> tuple[Image, NDArray[np.uint8] | None]:
        """The ground's picture, and its labels where it has objects."""
        rng = np.random.default_rng(self._ground_seed)
        height, width = (round(_GROUND_MARGIN * side) for side in self.config.size)
        if self._cutouts is None or self._picture is None:
            return textures.background(rng, height, width), None
        image, labels, _ = self._cutouts.picture(self._picture)
        place = rng.random(2).tolist()
        ground = cover(image, height, width, place, nearest=False)
        if not labels.any():
            return ground, None
        lookup = np.zeros(256, np.uint8)
        lookup[1 : len(self.class_ids) - self._played + 1] = np.arange(self._played, len(self.class_ids)) + 1
        return ground, cover(lookup[labels], height, width, place, nearest=True)

    def _render_ground(self, t: int) -> tuple[Image, NDArray[np.uint8]]:
        height, width = self.config.size
        if self._ground is None:
            self._ground, self._ground_labels = self._lay_out_ground()
        camera = self._script.camera
        matrix = camera.rotations()[t]
        middle = np.array([width - 1, height - 1]) / 2
        ground_middle = np.array([self._ground.shape[1] - 1, self._ground.shape[0] - 1]) / 2
        offset = camera.drift[t] + camera.shift[t]
        affine = np.hstack([matrix, (middle - matrix @ (ground_middle + height * offset))[:, None]])
        warped = cv2.warpAffine(self._ground, affine, (width, height), borderMode=cv2.BORDER_REFLECT)
        motion_vector = self._exposure * height * self._script.ground_velocities[t]
        picture = np.asarray(layers.smear(warped, motion_vector), np.uint8)
        if self._ground_labels is None:
            return picture, np.zeros(self.config.size, np.uint8)
        labels = cv2.warpAffine(
            self._ground_labels, affine, (width, height), flags=cv2.INTER_NEAREST, borderValue=(IGNORE,)
        )
        return picture, np.asarray(labels, np.uint8)

    def _render_cutout(self, row: int, t: int) -> Layer | None:
        """Draw cut-out ``row`` as it is at frame t, or None where nothing of it is in the view."""
        thing, sprite = self._script.things[row], self._sprite(row)
        height, width = self.config.size
        scale = height * float(thing.scales[t]) / max(sprite.shape[:2])
        center = height * thing.centers[t] + np.array([width - 1, height - 1]) / 2
        squash = 1 + 0.08 * float(thing.shape[1]) + 0.03 * np.sin(thing.phases[t])
        pose = layers.pose((squash * (1 if thing.shape[0] > 0 else -1), 1.0), scale, float(thing.angles[t]), center)
        half = (np.array(sprite.shape[1::-1]) - 1) / 2
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        smear = self._exposure * height * thing.velocities[t]
        smear *= min(1.0, 0.5 * scale * max(sprite.shape[:2]) / max(float(np.abs(smear).max()), 1e-6))
        pad = int(np.ceil(np.abs(smear).max() / 2) + 8)
        box = layers.visible_box([layers.transform(corners.astype(np.float32), pose)], pad, height, width)
        if box is None:
            return None
        pose[:, 2] -= pose[:, :2] @ half + box[:2]
        size = box[2] - box[0], box[3] - box[1]
        paint = np.asarray(cv2.warpAffine(sprite, pose, size, flags=cv2.INTER_LINEAR), np.float32)
        return Layer(box, layers.smear(paint, smear), paint[..., 3] >= 0.5)

    def _sprite(self, row: int) -> FloatArray:
        """A cut-out at the largest size that it is shown at, in a light of its own."""
        if row not in self._sprites:
            assert self._cutouts is not None
            thing = self._script.things[row]
            sprite = self._cutouts.sprite(thing.kind)
            scale = self.config.size[0] * float(thing.scales.max()) / max(sprite.shape[:2])
            if scale < 1:
                size = [max(2, round(scale * side)) for side in sprite.shape[1::-1]]
                sprite = np.asarray(cv2.resize(sprite, size, interpolation=cv2.INTER_AREA), np.float32)
            gains = 1 + 0.12 * thing.shape[2] + 0.06 * np.array([thing.shape[3], 0, -thing.shape[3]])
            x = np.linspace(-1, 1, sprite.shape[1], dtype=np.float32)
            slope = 1 + 0.15 * self._light[0] * x[None, :, None]
            lit = sprite.copy()
            lit[..., :3] = np.minimum(sprite[..., :3] * gains * slope, 255 * sprite[..., 3:])
            self._sprites[row] = lit
        return self._sprites[row]

    def _render_thing(self, row: int, t: int) -> Layer | None:
        """Draw object or occluder ``row`` as it is at frame t, or None where nothing of it is in the view."""
        thing = self._script.things[row]
        height, width = self.config.size
        outline = _outline(thing, t)
        scale = height * float(thing.scales[t])
        center = height * thing.centers[t] + np.array([width - 1, height - 1]) / 2
        pose = layers.pose(outline.squash, scale, float(thing.angles[t]), center)
        polygons = [layers.transform(part.points, pose) for part in outline.parts]
        smear = self._exposure * height * thing.velocities[t]
        smear *= min(1.0, 0.5 * scale / max(float(np.abs(smear).max()), 1e-6))
        # Room for the blur and for the shadow.
        pad = int(np.ceil(np.abs(smear).max() / 2 + 0.12 * min(scale, 60)) + 2)
        box = layers.visible_box(polygons, pad, height, width)
        if box is None:
            return None
        cover = layers.fill(polygons, outline, box, oversample=4 if scale < 70 else 2)
        pose[:, 2] -= box[:2]
        ink = textures.dark_ink(self._pattern(row))
        paint = layers.shade(cover, self._texture(row, height), pose, ink, self._light, scale)
        return Layer(box, layers.smear(paint, smear), cover[..., 0] >= 128)

    def _texture(self, row: int, height: int) -> Image:
        if row not in self._textures:
            thing = self._script.things[row]
            side = int(np.clip(1.3 * height * thing.scales.max(), 16, height))
            self._textures[row] = textures.object_texture(self._pattern(row), side)
        return self._textures[row]

    def _pattern(self, row: int) -> textures.TextureSpec:
        is_object = row < self._played
        return self._script.things[0 if self.config.uniform and is_object else row].texture

    def _expose(self, picture: Image, t: int) -> Image:
        """Brightness flicker and sensor noise."""
        height, width = self.config.size
        y, x = self._grain_offsets[t]
        grain = _grain(height, width)[y : y + height, x : x + width]
        gain, strength = float(self._gains[t]), self._noise / 32
        return np.asarray(cv2.addWeighted(picture, gain, grain, strength, -128 * strength), np.uint8)


def generate_clip(
    seed: int, situation: str = "mixed", config: WorldConfig = WorldConfig(), cutouts: CutoutLibrary | None = None
) -> Clip:
    """Render every frame of a world."""
    world = World(seed, situation, config, cutouts)
    frames = [world.render(t) for t in range(config.frames)]
    images = np.stack([image for image, _ in frames])
    labels = np.stack([label for _, label in frames]).astype(np.int32)
    return Clip(images, labels, world.class_ids, seed, situation, world.rate, world.class_names)


def _outline(thing: Thing, t: int) -> Outline:
    draw = outlines.OBJECTS.get(thing.kind) or outlines.OCCLUDERS[thing.kind]
    return draw(float(thing.phases[t]), thing.shape)


@lru_cache(maxsize=4)
def _grain(height: int, width: int) -> Image:
    """Noise (height + 64, width + 64, 3) uint8 around 128, one for all worlds: a frame takes a window of it."""
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(128, 32, (height + 64, width + 64, 3)), 0, 255).astype(np.uint8)
