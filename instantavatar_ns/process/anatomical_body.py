"""The free body with joints where people have them.

The joints of the free body are those of MakeHuman's animation rig, some of them centimetres from the joints of people:
hips 22 cm apart, and a head that turns about the middle of the neck. A fit would turn thighs and neck to make up for
that. Public anatomy says where they are, for an adult of 1.74 m:

- hips: 84 mm from the middle (Harrington et al., J. Biomechanics 40, 2007, for a pelvis 23 cm wide)
- collars, the sternoclavicular joints: about 25 mm from the middle
- hands, the base of the middle finger: 86 mm from the wrist (de Leva, J. Biomechanics 29, 1996)
- head, the occipital condyles: about 20 mm below the ears' openings and 10 mm behind, as crash-test dummies have them

Each is a combination of MakeHuman's joints, or of the ears' vertices, so that it moves with the shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from instantavatar_ns.body.files import FREE_BODY, read_body_file
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.utils.files import written_whole

# Shares of the free body's own distances, those of its mean shape as if it were 1.74 m tall.
_HIPS_APART, _COLLARS_APART, _HAND_FROM_WRIST = 84 / 114, 25 / 64, 86 / 109
_FROM_EARS_TO_NECK = 0.19  # of the way, which is 117 mm down and 36 mm back


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
    with np.load(FREE_BODY) as archive:
        regressor, parts, names = (archive[name] for name in ("J_regressor", "parts", "part_names"))
    ears = parts == names.tolist().index("ears")
    return _moved(regressor, ears / ears.sum())


def _moved(
    regressor: Float[np.ndarray, "joints vertices"], ears: Float[np.ndarray, " vertices"]
) -> Float[np.ndarray, "joints vertices"]:
    """Combine the rows of a joint regressor anew.

    Args:
        regressor: The free body's.
        ears: Weights of the vertices, whose mean is the middle of the ears.
    """
    old: dict[str, np.ndarray] = dict(zip(JOINT_NAMES, regressor, strict=True))
    new = dict(old)
    for side, other in (("left", "right"), ("right", "left")):
        for joint, apart in (("hip", _HIPS_APART), ("collar", _COLLARS_APART)):
            mine, far = old[f"{side}_{joint}"], old[f"{other}_{joint}"]
            new[f"{side}_{joint}"] = mine + 0.5 * (1 - apart) * (far - mine)
        wrist = old[f"{side}_wrist"]
        new[f"{side}_hand"] = wrist + _HAND_FROM_WRIST * (old[f"{side}_hand"] - wrist)
    new["head"] = ears + _FROM_EARS_TO_NECK * (old["neck"] - ears)
    return np.stack([new[name] for name in JOINT_NAMES]).astype(np.float32)
