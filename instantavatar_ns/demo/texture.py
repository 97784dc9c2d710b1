"""Colours of the demo subject: a solid texture, a function of the place on the naked body in the T-pose.

No texture map is needed, and detail is as fine as the image. Colours are sRGB values in [0, 1]; layers are painted over
each other in the order in which a person dresses.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import map_coordinates

from instantavatar_ns.demo.outfit import (
    Landmarks,
    belt_depth,
    hair_depth,
    neckline_height,
    shirt_depth,
    shoe_depth,
    smooth_step,
    trousers_depth,
)
from instantavatar_ns.demo.palette import Palette, rgb

_STRIPE = 0.034


def albedo(
    places: Float[ndarray, "n 3"],
    dressed: Float[ndarray, "n 3"],
    masks: Float[ndarray, "n 2"],
    marks: Landmarks,
    palette: Palette,
) -> Float[ndarray, "n 3"]:
    """Colours of points of the surface.

    Args:
        places: Positions on the naked body in the T-pose, metres.
        dressed: Positions on the clothes in the T-pose, metres, along which the T-shirt's print is straight.
        masks: Membership of ears and lips, 0 to 1.
        marks: Landmarks of that body.
        palette: Colours of the person.
    """
    out = np.zeros_like(places)
    height = places[:, 1]
    skin = (height > marks.waist) & (shirt_depth(places, marks) < 0.012)
    shirt = (height > marks.waist - 0.002) & (shirt_depth(places, marks) > -0.012)
    legs = height <= marks.waist + 0.002
    # Each layer is evaluated only where it can be seen: most of the cost is in the noise.
    out[skin] = _skin(places[skin], masks[skin], marks, palette)
    cloth = _shirt(places[shirt], dressed[shirt], marks, palette)
    out[shirt] = _over(out[shirt], cloth, smooth_step(shirt_depth(places[shirt], marks), 0.002))
    out[legs] = _legs(places[legs], dressed[legs], marks, palette)
    return out


def _skin(places: ndarray, masks: ndarray, marks: Landmarks, palette: Palette) -> Float[ndarray, "n 3"]:
    """Skin with face and hair, and a watch on the left wrist."""
    noise = palette.noise
    ears, lips = masks.T
    blush = np.clip(noise(places * 25.0) - 0.35, 0.0, None) * 0.10 + 0.10 * ears
    x, y, z = (places - marks.eyes).T
    side = np.abs(x)
    front = z > -0.06
    cheeks = np.exp(-(((side - 0.040) / 0.018) ** 2) - ((y + 0.042) / 0.020) ** 2)
    nose = np.exp(-((side / 0.013) ** 2) - ((y + 0.040) / 0.012) ** 2)
    blush = blush + front * (0.16 * cheeks + 0.16 * nose)
    out = palette.skin * (0.97 + 0.06 * noise(places * 60.0))[:, None]
    out = out * (1.0 - np.outer(blush, [0.10, 0.55, 0.55]))

    head = (y > -0.14) & (side < 0.11)
    if head.any():
        out[head] = _head(out[head], places[head], ears=ears[head], lips=lips[head], marks=marks, palette=palette)

    wrist = marks.joints["left_wrist"][0]
    band = smooth_step(0.012 - np.abs(places[:, 0] - wrist + 0.035), 0.003)
    out = _over(out, rgb("#22252a"), band)
    radius = np.hypot(places[:, 0] - wrist + 0.035, places[:, 2] - marks.joints["left_wrist"][2])
    upper = places[:, 1] > marks.joints["left_wrist"][1]
    out = _over(out, rgb("#c9ccd2"), upper * smooth_step(0.019 - radius, 0.003))
    return _over(out, rgb("#f4f2ea"), upper * smooth_step(0.015 - radius, 0.003))


def _head(
    out: ndarray, places: ndarray, *, ears: ndarray, lips: ndarray, marks: Landmarks, palette: Palette
) -> Float[ndarray, "n 3"]:
    """Lips, brows, eyes and hair over the head's skin."""
    noise = palette.noise
    x, y, z = (places - marks.eyes).T
    front = (z > -0.06).astype(float)
    out = _over(out, palette.skin * [0.82, 0.52, 0.50], 0.65 * smooth_step(lips - 0.5, 0.25))
    smile = places[:, 1] - marks.mouth[1] - 7.0 * x**2
    parting = np.exp(-((smile / 0.0014) ** 2)) * smooth_step(0.023 - np.abs(x), 0.006)
    out = _over(out, palette.skin * [0.42, 0.22, 0.22], 0.8 * front * parting)

    # A brow: an arc over each eye, thinner towards the temple.
    along = (np.abs(x) - 0.014) / 0.040
    arc = marks.brows - marks.eyes[1] - 0.004 + 0.006 * np.sin(2.2 * np.clip(along, 0.0, 1.0))
    thickness = 0.0048 * np.sqrt(np.clip(4.0 * along * (1.0 - along), 0.0, 1.0)) * (1.15 - 0.65 * along)
    hairs = noise(np.stack([np.abs(x) * 700.0 + y * 500.0, y * 60.0, z * 60.0], axis=-1))
    brow = front * smooth_step(thickness - np.abs(y - arc) - 0.0012 * hairs, 0.002) * (np.abs(along - 0.5) < 0.5)
    out = _over(out, palette.hair * 0.75, 0.88 * brow)

    across = np.abs(x) - marks.eye_spacing
    # An almond: an ellipse whose upper half is rounder than its lower half.
    opening = 1.0 - (across / 0.0150) ** 2 - (y / np.where(y > 0.0, 0.0068, 0.0056)) ** 2
    white = front * smooth_step(opening, 0.25)
    lash = front * np.exp(-((opening / np.where(y > 0.0, 0.42, 0.22)) ** 2)) * np.where(y > 0.0, 0.85, 0.4)
    socket = front * np.exp(-((across / 0.020) ** 2) - ((y - 0.004) / 0.013) ** 2)
    out = out * (1.0 - 0.16 * socket[:, None])
    out = _over(out, rgb("#eeeae4"), white)
    from_pupil = np.hypot(across, y - 0.0004)
    iris = palette.iris * (0.75 + 0.5 * noise(places * 900.0))[:, None]
    out = _over(out, iris, white * smooth_step(0.0062 - from_pupil, 0.0012))
    out = _over(out, rgb("#14100e"), white * smooth_step(0.0027 - from_pupil, 0.0010))
    glint = np.hypot(across * np.sign(x) + 0.0018, y - 0.0022)
    out = _over(out, rgb("#ffffff"), white * smooth_step(0.0012 - glint, 0.0008))
    out = _over(out, palette.hair * 0.45, lash)

    # Locks run down from the crown: noise stretched along the meridians of the skull.
    offset = places - marks.skull
    meridian = np.arctan2(offset[:, 0], offset[:, 2])
    polar = np.arctan2(np.hypot(offset[:, 0], offset[:, 2]), offset[:, 1])
    curl = 0.35 * np.sin(polar * 5.0)
    wide = noise(np.stack([(meridian + curl) * 14.0, polar * 4.0, np.ones_like(polar)], axis=-1))
    fine = noise(np.stack([(meridian + curl) * 45.0, polar * 9.0, 9.0 * np.ones_like(polar)], axis=-1))
    hair = palette.hair * (0.55 + 0.55 * wide + 0.45 * fine)[:, None]
    fringe = 0.012 * (fine - 0.5) + 0.010 * (wide - 0.5)
    return _over(out, hair, smooth_step(hair_depth(places, marks) + fringe, 0.006) * smooth_step(0.4 - ears, 0.2))


def _shirt(places: ndarray, dressed: ndarray, marks: Landmarks, palette: Palette) -> Float[ndarray, "n 3"]:
    """A striped T-shirt with plain sleeves, an emblem on the chest and a number on the back."""
    noise = palette.noise
    x, y, z = dressed.T
    shoulder = marks.joints["left_shoulder"]
    chest = marks.joints["spine3"][1] + 0.035
    phase = np.abs(((y - marks.waist) / _STRIPE) % 2.0 - 1.0)
    striped = smooth_step((0.5 - phase) * _STRIPE, 0.002)
    torso = smooth_step(shoulder[0] - 0.012 - np.abs(x), 0.003) * smooth_step(chest - 0.125 - y, 0.002)
    out = _over(np.broadcast_to(palette.shirt, places.shape), palette.stripe, torso * striped)

    front = _printed(palette.front, x / 0.17 + 0.5, 0.5 - (y - chest) / 0.17) * (z > 0.0)
    back = _printed(palette.back, 0.5 - x / 0.20, 0.5 - (y - chest + 0.01) / 0.20) * (z < 0.0)
    out = _over(out, palette.stripe, np.maximum(front, back))

    rib = smooth_step(0.020 + neckline_height(places, marks), 0.002)
    cuff = smooth_step(np.abs(places[:, 0]) - marks.sleeve_end + 0.022, 0.002)
    out = _over(out, palette.stripe * 0.95, np.maximum(rib, cuff))
    seams = np.exp(-(((np.abs(x) - shoulder[0] + 0.012) / 0.0018) ** 2))
    out = out * (1.0 - 0.35 * seams[:, None])
    weave = 0.93 + 0.10 * noise(dressed * 260.0) + 0.10 * (noise(dressed * [10.0, 22.0, 10.0]) - 0.5)
    return out * weave[:, None]


def _legs(places: ndarray, dressed: ndarray, marks: Landmarks, palette: Palette) -> Float[ndarray, "n 3"]:
    """Trousers with belt, seams and pockets; socks and shoes."""
    noise = palette.noise
    x, y, z = places.T
    side = np.abs(x)
    knee, hip = marks.joints["left_knee"], marks.joints["left_hip"]
    leg = np.interp(y, [knee[1], hip[1]], [knee[0], 0.10])
    twill = 0.86 + 0.20 * noise(places * [350.0, 120.0, 350.0]) + 0.12 * noise(places * 30.0)
    denim = palette.trousers * twill[:, None]
    worn = np.exp(-(((y - knee[1] - 0.22) / 0.20) ** 2) - ((side - leg) / 0.06) ** 2) * (z > 0.0)
    denim = denim * (1.0 + np.outer(0.45 * worn, [0.8, 0.9, 1.0]))
    outer = np.exp(-(((z - hip[2]) / 0.0022) ** 2)) * (side > leg)
    below_belt = marks.waist - 0.036 - y
    pocket_edge = np.hypot(side - 0.185, below_belt + 0.01) - 0.085
    pocket = np.exp(-((pocket_edge / 0.002) ** 2)) * (z > 0.01) * (below_belt > 0.0)
    fly = np.exp(-(((x - 0.018) / 0.002) ** 2)) * (z > 0.0) * (below_belt < 0.12)
    back_pocket = np.maximum(np.abs(side - 0.085) - 0.052, np.abs(below_belt - 0.115) - 0.058)
    back_pocket = np.exp(-((back_pocket / 0.002) ** 2)) * (z < -0.02)
    denim = denim * (1.0 - 0.45 * np.maximum(outer, fly)[:, None])
    stitching = np.maximum(pocket, back_pocket)
    hem = np.exp(-(((dressed[:, 1] - marks.trouser_hem - 0.025) / 0.0018) ** 2))
    out = _over(denim, rgb("#c79a5a"), 0.8 * np.maximum(stitching, hem))

    belt = smooth_step(belt_depth(places, marks), 0.002)
    out = _over(out, rgb("#4a2c1a") * (0.85 + 0.3 * noise(places * 90.0))[:, None], belt)
    buckle = np.maximum(side - 0.026, np.abs(y - marks.waist + 0.018) - 0.017)
    frame = np.minimum(-buckle, buckle + 0.008)
    out = _over(out, rgb("#d8d3c4"), smooth_step(frame, 0.002) * (z > 0.0))

    sock = rgb("#d9d9d4") * (0.9 + 0.12 * np.sin(y * 900.0))[:, None]
    out = _over(out, sock, smooth_step(-trousers_depth(places, marks), 0.002) * (y < knee[1]))
    return _over(out, _shoe(dressed, marks, palette), smooth_step(shoe_depth(places, marks), 0.002))


def _shoe(dressed: ndarray, marks: Landmarks, palette: Palette) -> Float[ndarray, "n 3"]:
    """Sneakers: light soles and toe caps, laces."""
    ankle, ball = marks.joints["left_ankle"], marks.joints["left_foot"]
    x, y, z = dressed.T
    across = np.abs(x) - np.interp(z, [ankle[2], ball[2]], [ankle[0], ball[0]])
    ahead = (z - ankle[2]) / (ball[2] - ankle[2])
    out = palette.shoe * (0.9 + 0.2 * palette.noise(dressed * 150.0))[:, None]
    tongue = (np.abs(across) < 0.020) & (ahead > 0.35) & (ahead < 0.95) & (y > marks.floor + 0.03)
    laces = tongue * smooth_step(np.sin(ahead * 42.0), 0.6)
    out = _over(out, palette.shoe * 0.55, 0.8 * tongue)
    out = _over(out, rgb("#f0eee8"), laces)
    out = _over(out, rgb("#e9e6df"), smooth_step(ahead - 1.10, 0.04))
    out = _over(out, rgb("#efede6"), smooth_step(marks.floor + 0.026 - y, 0.002))
    return _over(out, palette.shoe * 0.6, np.exp(-(((y - marks.floor - 0.027) / 0.0015) ** 2)))


def _over(base: Float[ndarray, "n 3"], layer: ndarray, share: Float[ndarray, " n"]) -> Float[ndarray, "n 3"]:
    """Paint a layer (a colour, or one colour a point) over others."""
    return base + share[:, None] * (layer - base)


def _printed(
    picture: Float[ndarray, "256 256"], column: Float[ndarray, " n"], row: Float[ndarray, " n"]
) -> Float[ndarray, " n"]:
    """A picture at places given in shares of its size; nothing beyond its edges."""
    size = len(picture)
    return map_coordinates(picture, [row * size - 0.5, column * size - 0.5], order=1, mode="constant")
