"""The free body with joints where people have them.

The joints of the free body are those of MakeHuman's animation rig, some of them centimetres from the joints of people:
hips 22 cm apart and 10 cm behind the iliac spines, a lowest joint of the spine 5 cm above the pelvis that it stands on,
and a head that turns about the middle of the neck. A fit would turn thighs, trunk and neck to make up for that. Public
anatomy says where they are, for an adult of 1.74 m:

- hips: 84 mm from the middle and 60 mm behind the anterior superior iliac spines (Harrington et al., J. Biomechanics
  40, 2007, for a pelvis 23 cm wide and 15 cm deep, tilted by 11 degrees as people stand: Levine and Whittle, J.
  Orthopaedic & Sports Physical Therapy 24, 1996); the free body has these spines 87 mm ahead of its pelvis
- spine1, where the trunk turns on the pelvis, the joint of the fifth lumbar vertebra and the sacrum: 97 mm above the
  hips (Reed et al., SAE 1999-01-0959, the mean of both sexes, for the same pelvis); how far behind them is the rig's,
  24 mm, where Reed et al. have 17 mm
- spine3, which bears the ribs and the arms, the joint of the twelfth thoracic and the first lumbar vertebra: the lumbar
  spine is 180 mm long (Gray, Anatomy of the Human Body, 1918), its ends 4 % nearer for its bend of some 60 degrees;
  spine2 is half way
- neck, the joint of the seventh cervical and the first thoracic vertebra: 55 % of the way from the former's spine to
  the upper edge of the breastbone, and 8 degrees above it (Reed et al., of men); these are 1498 and 1427 mm high (de
  Leva, J. Biomechanics 29, 1996), so on the free body's skin it is 555 mm above the hips, not before nor behind them
- pelvis, amid the sacroiliac joints, in the sacrum's second vertebra: 45 mm from spine1, since the first vertebra is
  some 30 mm high, along a sacrum whose upper face is tilted by 40 degrees as people stand (Mac-Thiong et al., European
  Spine J. 20, 2011): 63 mm above the hips and 46 mm behind them
- collars, the sternoclavicular joints: about 25 mm from the middle
- hands, the base of the middle finger: 86 mm from the wrist (de Leva, 1996)
- head, the occipital condyles: about 20 mm below the ears' openings and 10 mm behind, as crash-test dummies have them

Each is a combination of MakeHuman's joints, of the ears' vertices, or of the skin before and behind the joint, so that
it moves with the shape. SMPL has the same joints at other places: its spine1 is 20 cm above the hips.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from instantavatar_ns.body.files import FREE_BODY, read_body_file
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.utils.files import written_whole

Row = Float[np.ndarray, " vertices"]

_ADULT = 1.74  # metres, of whom the places below are, and as which the free body's mean shape counts
# Shares of the free body's own distances.
_HIPS_APART, _COLLARS_APART, _HAND_FROM_WRIST = 84 / 114, 25 / 64, 86 / 109
_FROM_EARS_TO_NECK = 0.19  # of the way, which is 117 mm down and 36 mm back
_HIPS_AHEAD = 37 / 216  # of the way through the body, from the skin behind the hips to the skin before them
_BESIDE, _ABOVE = 0.05, 0.03  # metres from a joint, within which that skin is
# Metres above the middle between the hips, and before it; None: as the rig's own line of joints runs.
_TRUNK: dict[str, tuple[float, float | None]] = {
    "pelvis": (0.063, -0.046),
    "spine1": (0.097, None),
    "spine2": (0.184, None),
    "spine3": (0.270, None),
    "neck": (0.555, 0.0),
}


def load_anatomical_body() -> BodyModel:
    """Load the free body with its joints moved."""
    return BodyModel(read_body_file(FREE_BODY) | {"J_regressor": _anatomical_regressor()})


def write_anatomical_body(path: Path) -> None:
    """Write the free body with its joints moved, a file in SMPL's format."""
    with np.load(FREE_BODY) as archive:
        arrays = dict(archive)
    regressor = _anatomical_regressor()
    moved = {"J_regressor": regressor, "J": regressor @ arrays["v_template"]}
    with written_whole(path) as partial:
        np.savez_compressed(partial, **(arrays | moved))


def _anatomical_regressor() -> Float[np.ndarray, "joints vertices"]:
    """Combine the rows of the free body's joint regressor anew."""
    with np.load(FREE_BODY) as archive:
        arrays = {name: archive[name] for name in ("v_template", "J_regressor", "parts", "part_names")}
    vertices, regressor, parts, names = arrays.values()
    vertices = vertices * (_ADULT / np.ptp(vertices[:, 1]))
    ears = _mean_of(parts == names.tolist().index("ears"))
    old: dict[str, Row] = dict(zip(JOINT_NAMES, regressor, strict=True))
    new = dict(old)
    for side, other in (("left", "right"), ("right", "left")):
        for joint, apart in (("hip", _HIPS_APART), ("collar", _COLLARS_APART)):
            mine, far = old[f"{side}_{joint}"], old[f"{other}_{joint}"]
            new[f"{side}_{joint}"] = mine + 0.5 * (1 - apart) * (far - mine)
        hip = new[f"{side}_hip"]
        new[f"{side}_hip"] = hip + _HIPS_AHEAD * _through_body(vertices, hip @ vertices)
        wrist = old[f"{side}_wrist"]
        new[f"{side}_hand"] = wrist + _HAND_FROM_WRIST * (old[f"{side}_hand"] - wrist)
    new["head"] = ears + _FROM_EARS_TO_NECK * (old["neck"] - ears)
    hips = 0.5 * (new["left_hip"] + new["right_hip"])
    line = [hips, *(old[name] for name in _TRUNK)]
    for name, (above, before) in _TRUNK.items():
        new[name] = _on_line(vertices, line, above)
        if before is not None:
            through = _through_body(vertices, new[name] @ vertices)
            missing = before - ((new[name] - hips) @ vertices)[2]
            new[name] = new[name] + missing / (through @ vertices)[2] * through
    return np.stack([new[name] for name in JOINT_NAMES]).astype(np.float32)


def _on_line(vertices: Float[np.ndarray, "vertices 3"], line: list[Row], above: float) -> Row:
    """Return weights of the point on a line of points from below upwards, so far above the first one.

    Args:
        vertices: In the T-pose, metres.
        line: Weights of each point of the line.
        above: Metres.
    """
    heights = [float(((point - line[0]) @ vertices)[1]) for point in line]
    place = float(np.interp(above, heights, range(len(line))))
    below = min(int(place), len(line) - 2)
    return line[below] + (place - below) * (line[below + 1] - line[below])


def _through_body(vertices: Float[np.ndarray, "vertices 3"], joint: Float[np.ndarray, "3"]) -> Row:
    """Return weights of the vertices whose sum leads from the skin behind a joint to the skin before it."""
    beside, above, ahead = (vertices - joint).T
    near = (np.abs(beside) < _BESIDE) & (np.abs(above) < _ABOVE)
    return _mean_of(near & (ahead > 0)) - _mean_of(near & (ahead < 0))


def _mean_of(chosen: Bool[np.ndarray, " vertices"]) -> Row:
    """Return weights of the vertices whose sum is the mean of the chosen ones."""
    return chosen / chosen.sum()
