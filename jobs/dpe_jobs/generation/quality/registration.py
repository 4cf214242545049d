"""Whether two thumbnails show the same picture after a crop, a change of brightness or something pasted over it.

One is laid over the other by an axis-parallel scale and shift and by a gain and an offset of brightness, fitted
together (Gauss-Newton on intensities: Lucas and Kanade 1981) with weights that leave outliers alone (Cauchy's, as in
Black and Anandan 1996). Then the cells in which the reserved picture has something to show are asked one by one whether
the other shows the same. All functions work on K pairs at once; thumbnails are (K, 32, 32, 3) float32, values 0-255.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIDE = 32  # pixels of a thumbnail
LUMA: Array = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
MAX_CROP = 0.16  # of a side: how far scale and shift may go
_FULL = 253.0  # above it brightness may have been cut off
_PIXEL_NOISE = 6.0  # grey levels: what recompression does to a cell of 2x2
_CONTRAST_NOISE = 0.25  # and, of how far the cell stands out, what resampling does
_STANDS_OUT = 40.0  # grey levels from the ground at which a cell counts in full
_EDGE = 16.0  # grey levels between neighbouring cells


def coarser(pictures: Array, factor: int) -> Array:
    """Means of squares of `factor` pixels; (K, n, n, ...) becomes (K, n / factor, n / factor, ...)."""
    # sums of slices: numpy reduces short inner axes slowly
    rows: Array = sum((pictures[:, start::factor] for start in range(1, factor)), pictures[:, ::factor])
    small: Array = sum((rows[:, :, start::factor] for start in range(1, factor)), rows[:, :, ::factor])
    return (small / factor**2).astype(np.float32)


def _largest(channels: Array) -> Array:
    """Largest of three channels, the last axis."""
    largest: Array = np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])
    return largest


def _centres(side: int) -> Array:
    """Pixel centres in [-1, 1]."""
    return np.linspace(1 / side - 1, 1 - 1 / side, side, dtype=np.float32)


def _interpolation(side: int, scale: Array, shift: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Matrices (K, side, side) that sample a line at scale * x + shift, and where that is inside (K, side)."""
    place = (scale[:, None] * _centres(side) + shift[:, None] + 1) * side / 2 - 0.5
    inside = (place >= -0.5) & (place <= side - 0.5)
    place = np.clip(place, 0, side - 1)
    left = np.minimum(place.astype(np.int64), side - 2)
    right_part = (place - left).astype(np.float32)
    matrix = np.zeros((len(scale), side, side), np.float32)
    pair, row = np.arange(len(scale))[:, None], np.arange(side)[None]
    matrix[pair, row, left] = 1 - right_part
    matrix[pair, row, left + 1] += right_part
    return matrix, inside


def warp(pictures: Array, frame: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Pictures (K, n, n) or (K, n, n, 3) as seen through frames (K, 4: scale x, shift x, scale y, shift y).

    The second result, (K, n, n), is False where a frame leaves its picture.
    """
    across, in_x = _interpolation(pictures.shape[1], frame[:, 0], frame[:, 1])
    down, in_y = _interpolation(pictures.shape[1], frame[:, 2], frame[:, 3])
    planes = pictures.reshape(*pictures.shape[:3], -1)
    seen = np.stack([down @ planes[..., c] @ across.transpose(0, 2, 1) for c in range(planes.shape[-1])], -1)
    framed = np.reshape(seen, pictures.shape).astype(np.float32)
    return framed, in_y[:, :, None] & in_x[:, None, :]


def _step(ours: Array, theirs: Array, frame: Array, most: float) -> Array:
    """One Gauss-Newton step of the frame through which `theirs` looks like `ours`; both (K, n, n), luma."""
    count, side, _ = ours.shape
    seen, inside = warp(theirs, frame)
    mask = inside.astype(np.float32)
    dy, dx = (gradient * side / 2 for gradient in np.gradient(seen, axis=(1, 2)))
    total = mask.sum((1, 2), keepdims=True) + 1e-6
    x = (seen - (seen * mask).sum((1, 2), keepdims=True) / total) * mask
    y = (ours - (ours * mask).sum((1, 2), keepdims=True) / total) * mask
    gain = np.clip((x * y).sum((1, 2), keepdims=True) / ((x * x).sum((1, 2), keepdims=True) + 1e-3), 0.3, 3)
    residual = y - gain * x
    spread = np.sqrt((residual**2).sum((1, 2), keepdims=True) / total) + 1
    weight = (mask / (1 + (residual / (1.5 * spread)) ** 2)).reshape(count, -1, 1)
    u, v = _centres(side)[None, None, :], _centres(side)[None, :, None]
    slopes = [gain * dx * u, gain * dx, gain * dy * v, gain * dy, seen, np.ones_like(seen)]
    jacobian = np.stack(slopes, -1).reshape(count, -1, 6)
    normal = (jacobian * weight).transpose(0, 2, 1) @ jacobian
    diagonal = np.arange(6)
    normal[:, diagonal, diagonal] = normal[:, diagonal, diagonal] * 1.01 + 1e-2  # Levenberg 1944
    change = np.linalg.solve(normal, (jacobian * weight).transpose(0, 2, 1) @ residual.reshape(count, -1, 1))
    frame = frame + np.clip(change[:, :4, 0], -0.1, 0.1)
    low = np.array([1 - most, -most, 1 - most, -most], np.float32)
    high = np.array([1 + most, most, 1 + most, most], np.float32)
    fitted: Array = np.clip(frame, low, high).astype(np.float32)
    return fitted


def align(ours: Array, theirs: Array, most: float = MAX_CROP, steps: tuple[int, int] = (6, 2)) -> Array:
    """Frames (K, 4) through which `theirs` look most like `ours`; scale and shift change by `most` at most."""
    frame = np.tile(np.array([1, 0, 1, 0], np.float32), (len(ours), 1))
    fine, other = ours @ LUMA, theirs @ LUMA
    for ours, theirs, count in ((coarser(fine, 2), coarser(other, 2), steps[0]), (fine, other, steps[1])):
        for _ in range(count):
            frame = _step(ours, theirs, frame, most)
    return frame


def _brightness(ours: Array, theirs: Array, usable: Array) -> tuple[Array, Array]:
    """Gain and offset (K, 1) of `theirs` that give `ours`, both (K, m); where both are cut off at white is no sign."""
    gain, offset = np.ones((len(ours), 1), np.float32), np.zeros((len(ours), 1), np.float32)
    weight = usable.copy()
    for _ in range(5):
        total = weight.sum(1, keepdims=True) + 1e-6
        x_mean, y_mean = (weight * theirs).sum(1, keepdims=True) / total, (weight * ours).sum(1, keepdims=True) / total
        x, y = theirs - x_mean, ours - y_mean
        ridge = 4.0  # squared grey levels: a plain picture keeps the gain of 1
        gain = ((weight * x * y).sum(1, keepdims=True) / total + ridge) / (
            (weight * x * x).sum(1, keepdims=True) / total + ridge
        )
        gain = np.clip(gain, 0.4, 2.5)
        offset = y_mean - gain * x_mean
        fit = gain * theirs + offset
        cut = (ours >= _FULL) & (fit >= _FULL)
        weight = np.where(cut, 0, usable / (1 + ((ours - fit) / 8) ** 2))
    return gain, offset


def agreement(ours: Array, theirs: Array, inside: NDArray[np.bool_]) -> Array:
    """Share (K,) of what `theirs` show that `ours` show as well, counted over cells of 2x2 pixels inside the frame."""
    count = len(ours)
    whole = coarser(inside.astype(np.float32), 2) > 0.99
    mine, other = coarser(ours, 2).reshape(count, -1), coarser(theirs, 2).reshape(count, -1)
    usable = np.repeat(whole.reshape(count, -1), 3, axis=1).astype(np.float32)
    gain, offset = _brightness(mine, other, usable)
    fit = np.clip(gain * other + offset, 0, 255).reshape(count, -1, 3)
    cells = np.sort(np.where(whole.reshape(count, -1, 1), fit, np.inf), axis=1)
    middle = whole.reshape(count, -1).sum(1) // 2
    ground = np.nan_to_num(np.take_along_axis(cells, middle[:, None, None], axis=1), posinf=0)  # the median inside
    stands_out = _largest(np.abs(fit - ground))
    differs = mine.reshape(count, -1, 3) - fit
    brighter = differs @ LUMA
    same = np.abs(brighter) <= _PIXEL_NOISE + _CONTRAST_NOISE * np.abs((fit - ground) @ LUMA)
    side = SIDE // 2
    tint = coarser((differs - brighter[..., None]).reshape(count, side, side, 3), 2)
    # JPEG stores a quarter of the colours only: they are compared over cells of 4x4 pixels
    tinted = _largest(np.abs(tint)).repeat(2, axis=1).repeat(2, axis=2).reshape(count, -1)
    same &= tinted <= _PIXEL_NOISE + _CONTRAST_NOISE * stands_out
    weight = np.clip(stands_out / _STANDS_OUT, 0, 1) * whole.reshape(count, -1)
    share: Array = (weight * same).sum(1) / (weight.sum(1) + 1e-6)
    return share


def detail(pictures: Array) -> NDArray[np.int64]:
    """In how many of 4x4 fields a picture has an edge, (K,): how much there is to align by."""
    cells = coarser(pictures @ LUMA, 2)
    edge = np.zeros(cells.shape, np.bool_)
    edge[:, :, :-1] |= np.abs(np.diff(cells, axis=2)) >= _EDGE
    edge[:, :-1] |= np.abs(np.diff(cells, axis=1)) >= _EDGE
    fields: NDArray[np.int64] = (coarser(edge.astype(np.float32), 4) > 0).sum((1, 2))
    return fields
