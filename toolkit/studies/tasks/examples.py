"""Four data sets as users have them, made of what is at hand: files that the recipes of the study read."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelpress.toolkit.data.png_file import encode_png

_RATE, _SECONDS = 8000, 0.5  # of the sounds
_FRAMES, _BANDS, _WINDOW = 49, 10, 256
SOUNDS = (
    "low tone",
    "middle tone",
    "high tone",
    "rising chirp",
    "falling chirp",
    "two tones",
    "trembling tone",
    "white noise",
    "dark noise",
    "clicks",
)
Array = npt.NDArray[np.float64]


def write_digit_folder(folder: Path, limit: int | None = None) -> Path:
    """The handwritten digits of scikit-learn as grey PNG files of 16 by 16, a folder per class."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.clip(zoom(digits.images, (1, 2, 2), order=1) * (255.0 / 16.0), 0, 255).astype(np.uint8)
    root = folder / "digits"
    for number, (image, label) in enumerate(zip(grey[:limit], digits.target, strict=False)):
        path = root / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image[None]))
    return root


def write_table(folder: Path, limit: int | None = None) -> Path:
    """The breast-cancer table of scikit-learn: 30 numbers of each tumour, and whether it is malignant."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    path = folder / "breast-cancer.npz"
    np.savez(path, features=table.data[:limit], labels=table.target[:limit], classes=table.target_names)
    return path


def write_sounds(folder: Path, limit: int | None = None) -> Path:
    """Ten kinds of sounds, 200 of each, as logarithms of 10 bands in 49 frames: ``(n, 1, 49, 10)``."""
    rng = np.random.default_rng(0)
    n = limit or 2000
    labels = np.arange(n) % len(SOUNDS)
    spectra = np.stack([_spectrogram(_sound(int(label), rng)) for label in labels])
    path = folder / "sounds.npz"
    np.savez(path, spectrograms=spectra.astype(np.float32), labels=labels, classes=SOUNDS)
    return path


def write_tokens(folder: Path, limit: int | None = None) -> Path:
    """The digits as sequences of 64 tokens, one of 17 levels of grey each, row by row."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = folder / "digit-tokens.npz"
    np.savez(path, tokens=digits.data[:limit].astype(np.int64), labels=digits.target[:limit])
    return path


def _sound(kind: int, rng: np.random.Generator) -> Array:
    """Half a second, of random pitch, loudness and beginning, in noise."""
    t = np.arange(int(_RATE * _SECONDS)) / _RATE
    low, high = rng.uniform(200, 500), rng.uniform(1500, 3000)
    rise = low + (high - low) * t / _SECONDS  # Hz
    noise = rng.standard_normal(len(t))
    voices = (
        lambda: _tone(t, low),
        lambda: _tone(t, rng.uniform(600, 1200)),
        lambda: _tone(t, high),
        lambda: np.sin(2 * np.pi * np.cumsum(rise) / _RATE),
        lambda: np.sin(2 * np.pi * np.cumsum(rise[::-1]) / _RATE),
        lambda: (_tone(t, low) + _tone(t, high)) / 2,
        lambda: _tone(t, rng.uniform(600, 1200)) * (0.5 + 0.5 * _tone(t, rng.uniform(6, 15))),
        lambda: 0.5 * noise,
        lambda: np.convolve(noise, np.ones(16) / 6, "same"),
        lambda: 3 * noise * (np.arange(len(t)) % int(rng.uniform(300, 700)) < 12),
    )
    return rng.uniform(0.3, 1.0) * voices[kind]() + rng.uniform(0.05, 0.5) * rng.standard_normal(len(t))


def _tone(t: Array, hertz: float) -> Array:
    return np.asarray(np.sin(2 * np.pi * hertz * t))


def _spectrogram(sound: Array) -> Array:
    """Logarithms of the energy in bands that widen, ``(1, frames, bands)``."""
    starts = np.linspace(0, len(sound) - _WINDOW, _FRAMES).astype(int)
    frames = np.stack([sound[start : start + _WINDOW] for start in starts]) * np.hanning(_WINDOW)
    energy = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # (frames, frequencies)
    edges = np.unique(np.geomspace(2, energy.shape[1], _BANDS + 1).astype(int))
    bands = np.stack([energy[:, a:b].mean(axis=1) for a, b in pairwise(edges)], axis=1)
    return np.log(bands + 1e-3)[None]
