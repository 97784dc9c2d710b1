"""The free body with joints where people have them.

The joints of the free body are those of MakeHuman's animation rig, some of them centimetres from the joints of people:
hips 22 cm apart and 10 cm behind the iliac spines, and a head that turns about the middle of the neck. A fit would
turn thighs and neck to make up for that. Public anatomy says where they are, for an adult of 1.74 m:

- hips: 84 mm from the middle and 60 mm behind the anterior superior iliac spines (Harrington et al., J. Biomechanics
  40, 2007, for a pelvis 23 cm wide and 15 cm deep, tilted by 11 degrees as people stand: Levine and Whittle, J.
  Orthopaedic & Sports Physical Therapy 24, 1996); the free body has these spines 87 mm ahead of its pelvis
- collars, the sternoclavicular joints: about 25 mm from the middle
- hands, the base of the middle finger: 86 mm from the wrist (de Leva, J. Biomechanics 29, 1996)
- head, the occipital condyles: about 20 mm below the ears' openings and 10 mm behind, as crash-test dummies have them

Each is a combination of MakeHuman's joints, of the ears' vertices, or of the skin before and behind the hips, so that
it moves with the shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from instantavatar_ns.body.files import FREE_BODY, read_body_file
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.utils.files import written_whole

# Shares of the free body's own distances, those of its mean shape as if it were 1.74 m tall.
_HIPS_APART, _COLLARS_APART, _HAND_FROM_WRIST = 84 / 114, 25 / 64, 86 / 109
_FROM_EARS_TO_NECK = 0.19  # of the way, which is 117 mm down and 36 mm back
_HIPS_AHEAD = 37 / 216  # of the way through the body, from the skin behind the hips to the skin before them
_BESIDE_HIPS, _ABOVE_HIPS = 0.05, 0.03  # metres from a hip, within which that skin is


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
    ears = _mean_of(parts == names.tolist().index("ears"))
    old: dict[str, np.ndarray] = dict(zip(JOINT_NAMES, regressor, strict=True))
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
    return np.stack([new[name] for name in JOINT_NAMES]).astype(np.float32)


def _through_body(
    vertices: Float[np.ndarray, "vertices 3"], joint: Float[np.ndarray, "3"]
) -> Float[np.ndarray, " vertices"]:
    """Return weights of the vertices whose sum leads from the skin behind a joint to the skin before it."""
    beside, above, ahead = (vertices - joint).T
    near = (np.abs(beside) < _BESIDE_HIPS) & (np.abs(above) < _ABOVE_HIPS)
    return _mean_of(near & (ahead > 0)) - _mean_of(near & (ahead < 0))


def _mean_of(chosen: Bool[np.ndarray, " vertices"]) -> Float[np.ndarray, " vertices"]:
    """Return weights of the vertices whose sum is the mean of the chosen ones."""
    return chosen / chosen.sum()
