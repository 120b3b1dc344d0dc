"""A camera model: exposure, white balance, contrast, blur, noise, compression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sensor:
    """One camera's settings.

    Attributes:
        exposure: factor on all light. balance: factors on red, green and blue.
        gamma, contrast: of the tone curve; 1: unchanged.
        vignette: how much darker the corners are, 0 to 1.
        defocus: standard deviation in pixels of an image 320 wide. motion: length in such pixels, and
            direction in radians.
        noise: standard deviations in grey levels of luminance and colour noise, both growing with gain.
        jpeg: quality; 0: no compression.
        seed: of the noise.
    """

    exposure: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    vignette: float = 0.0
    defocus: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    jpeg: int = 0
    seed: int = 0


def draw_sensor(rng: np.random.Generator) -> Sensor:
    """Draw a camera; three in ten have almost no artefacts."""
    seed = int(rng.integers(2**31))
    if rng.random() < 0.3:
        return Sensor(
            exposure=float(rng.uniform(0.9, 1.1)), jpeg=95 if rng.random() < 0.5 else 0, seed=seed
        )
    warm = float(rng.normal(0, 0.45))
    red = float(np.clip(1 + 0.22 * warm, 0.75, 1.3))
    blue = float(np.clip(1 - 0.22 * warm, 0.7, 1.3))
    tint = float(rng.uniform(0.95, 1.05))
    gain = float(rng.random() ** 2)
    return Sensor(
        exposure=float(np.exp(rng.uniform(math.log(0.5), math.log(1.5)))),
        balance=(red, tint, blue),
        gamma=float(np.exp(rng.uniform(-0.3, 0.3))),
        contrast=float(rng.uniform(0.75, 1.25)),
        vignette=float(rng.uniform(0, 0.5)) if rng.random() < 0.4 else 0.0,
        defocus=float(rng.uniform(0.4, 1.6)) if rng.random() < 0.4 else 0.0,
        motion=(float(rng.uniform(2, 6)), float(rng.uniform(0, math.pi)))
        if rng.random() < 0.12
        else (0.0, 0.0),
        noise=(9 * gain, 7 * gain * float(rng.random())) if rng.random() < 0.7 else (0.0, 0.0),
        jpeg=int(rng.integers(40, 96)) if rng.random() < 0.7 else 0,
        seed=seed,
    )


def apply_sensor(rgb: npt.NDArray[np.uint8], sensor: Sensor) -> npt.NDArray[np.uint8]:
    """The image as the sensor records it, uint8 [H, W, 3], from an image of the same shape.

    The exposure is limited so that the image is neither all dark nor all white.
    """
    height, width = rgb.shape[:2]
    image = rgb.astype(np.float32)
    mean = float(image.mean())
    exposure = float(np.clip(sensor.exposure, 60 / max(mean, 1), max(185 / max(mean, 1), 0.35)))
    image *= np.array(sensor.balance, np.float32) * np.float32(exposure)
    if sensor.vignette:
        x = np.linspace(-1, 1, width, dtype=np.float32)
        y = np.linspace(-1, 1, height, dtype=np.float32)
        image *= (1 - sensor.vignette * 0.5 * (y[:, None] ** 2 + x[None] ** 2))[..., None]
    if sensor.gamma != 1.0 or sensor.contrast != 1.0:
        image = 255 * (np.clip(image, 0, 255) / 255) ** np.float32(sensor.gamma)
        image = 118 + (image - 118) * np.float32(sensor.contrast)
    if sensor.defocus:
        image = cv2.GaussianBlur(image, (0, 0), sensor.defocus * width / 320)
    if sensor.motion[0]:
        image = cv2.filter2D(image, -1, _streak(sensor.motion[0] * width / 320, sensor.motion[1]))
    if any(sensor.noise):
        rng = np.random.default_rng(sensor.seed)
        light, colour = sensor.noise
        image += light * rng.standard_normal((height, width, 1), np.float32)
        # Colour noise is coarser: cameras smooth colour more than luminance.
        blots = rng.standard_normal((height // 2, width // 2, 3), np.float32)
        image += colour * cv2.resize(blots, (width, height), interpolation=cv2.INTER_LINEAR)
    shot = np.clip(image, 0, 255).astype(np.uint8)
    if sensor.jpeg:
        _, packed = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg])
        shot = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return shot


def _streak(length: float, angle: float) -> npt.NDArray[np.float32]:
    """A motion blur kernel."""
    size = 2 * math.ceil(length / 2) + 1
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    step = length / 2 * np.array([math.cos(angle), math.sin(angle)])
    a, b = (tuple(round(float(middle + s * v)) for v in step) for s in (-1, 1))
    cv2.line(kernel, a, b, 1.0, 1)
    return kernel / kernel.sum()
