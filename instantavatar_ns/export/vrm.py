"""VRM 1.0, a GLB of a humanoid for VR, streams and games with its author's terms, and VRMA, a motion for any of them.

VRM rests in its T-pose (`humanoid`) and holds no clips; each motion is a VRMA file of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from instantavatar_ns.export.gltf import glb_bytes, motion_glb_bytes, with_extension
from instantavatar_ns.export.humanoid import Humanoid, humanoid_of
from instantavatar_ns.export.rigged import RiggedAvatar
from instantavatar_ns.export.skeleton import Clip
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.utils.errors import InputError

LICENSE_URL = "https://vrm.dev/licenses/1.0/"  # fixed by the standard; the terms are its parameters
_EYE_HEIGHT = 0.936  # of a standing person's height (Drillis and Contini, "Body Segment Parameters", 1966)
_EYE_BAND = 0.015  # metres about the eyes in which the face's front is looked for
_LOOK_RANGE = {"inputMaxValue": 90.0, "outputScale": 10.0}  # degrees; for programs that add eyes


@dataclass(frozen=True)
class VrmMeta:
    """The author of a VRM and what others may do with it, in the words of https://vrm.dev/licenses/1.0/."""

    author: tuple[str, ...] = ()
    """Names of the authors, the first author first."""
    avatar_permission: Literal["onlyAuthor", "onlySeparatelyLicensedPerson", "everyone"] | None = None
    """Persons who may act as this avatar."""
    commercial_usage: Literal["personalNonProfit", "personalProfit", "corporation"] | None = None
    """Profit that may be made with it: none, that of persons, or that of companies too."""
    credit_notation: Literal["required", "unnecessary"] | None = None
    """Duty of users to name the author."""
    modification: Literal["prohibited", "allowModification", "allowModificationRedistribution"] | None = None
    """Right of others to change it, and to pass on what they changed."""
    allow_redistribution: bool = False
    """Let others pass it on."""
    allow_violent_usage: bool = False
    """Let others show it in excessively violent content."""
    allow_sexual_usage: bool = False
    """Let others show it in excessively sexual content."""
    allow_political_or_religious_usage: bool = False
    """Let others use it for politics or religion."""
    allow_antisocial_or_hate_usage: bool = False
    """Let others use it in antisocial content or hate speech."""
    name: str = ""
    """Name of the avatar; by default that of the run."""
    copyright: str | None = None
    """The holder of the copyright, where it is not the author."""
    contact: str | None = None
    """Address to ask for more."""

    def check(self) -> None:
        """Find out if the author has made all choices that the standard leaves to them.

        Raises:
            InputError: One is missing; the message lists the choices.
        """
        missing = [] if any(name.strip() for name in self.author) else ["--vrm.author NAME"]
        for name in ("avatar_permission", "commercial_usage", "credit_notation", "modification"):
            if getattr(self, name) is None:
                values = get_args(get_args(get_type_hints(VrmMeta)[name])[0])
                missing.append(f"--vrm.{name.replace('_', '-')} {{{','.join(values)}}}")
        if missing:
            message = "expected the author's name and choice of terms, which only they can make, found some missing"
            raise InputError("--format vrm", message, f"Add {' '.join(missing)} ({LICENSE_URL} explains them)")

    def content(self) -> dict[str, Any]:
        """The terms as VRM writes them."""
        optional = {"copyrightInformation": self.copyright, "contactInformation": self.contact}
        return {
            "name": self.name or "avatar",
            "authors": [author for author in self.author if author.strip()],
            "licenseUrl": LICENSE_URL,
            "avatarPermission": self.avatar_permission,
            "commercialUsage": self.commercial_usage,
            "creditNotation": self.credit_notation,
            "modification": self.modification,
            "allowRedistribution": self.allow_redistribution,
            "allowExcessivelyViolentUsage": self.allow_violent_usage,
            "allowExcessivelySexualUsage": self.allow_sexual_usage,
            "allowPoliticalOrReligiousUsage": self.allow_political_or_religious_usage,
            "allowAntisocialOrHateUsage": self.allow_antisocial_or_hate_usage,
            **{key: value for key, value in optional.items() if value},
        }


def vrm_files(stem: str, avatar: RiggedAvatar, motions: list[Motion], meta: VrmMeta) -> dict[str, bytes]:
    """The content of a VRM file, and of a VRMA file for each motion, by their names.

    Args:
        stem: Of the names.
        avatar: The avatar, from `AvatarMesh.rigged`.
        motions: Motions of the person, in any world.
        meta: Author and terms.

    Raises:
        InputError: Terms are missing, or the body has not the bones of a human.
    """
    person = humanoid_of(avatar)
    clips = {vrma_name(stem, motion.name): vrma_bytes(person, avatar.clip(motion)) for motion in motions}
    return {**clips, f"{stem}.vrm": vrm_bytes(person, meta)}


def vrma_name(stem: str, motion: str) -> str:
    """Name of the file of a motion that is written beside a VRM.

    Args:
        stem: Of the VRM's name.
        motion: The motion's name.
    """
    return f"{stem}_{motion}.vrma"


def vrm_bytes(humanoid: Humanoid, meta: VrmMeta) -> bytes:
    """The content of a VRM file.

    Args:
        humanoid: The avatar in VRM's T-pose.
        meta: Its author and terms.

    Raises:
        InputError: Terms are missing.
    """
    meta.check()
    avatar = humanoid.avatar
    glb = glb_bytes(
        avatar.mesh,
        texture_png=avatar.texture_png,
        skeleton=avatar.skeleton,
        rest=humanoid.rest,
        clips=[],
        dataset_to_upright=np.eye(4),
    )
    mesh_node = len(avatar.skeleton.names) + 1
    content = {
        "specVersion": "1.0",
        "meta": meta.content(),
        "humanoid": _human_bones(humanoid),
        "firstPerson": {"meshAnnotations": [{"node": mesh_node, "type": "auto"}]},
        "expressions": {"preset": {}},  # there are none, but three-vrm ignores lookAt where this is missing
        "lookAt": {
            "type": "bone",
            "offsetFromHeadBone": eyes(humanoid).tolist(),
            "rangeMapHorizontalInner": _LOOK_RANGE,
            "rangeMapHorizontalOuter": _LOOK_RANGE,
            "rangeMapVerticalDown": _LOOK_RANGE,
            "rangeMapVerticalUp": _LOOK_RANGE,
        },
    }
    return with_extension(glb, "VRMC_vrm", content)


def vrma_bytes(humanoid: Humanoid, clip: Clip) -> bytes:
    """The content of a VRMA file, a motion that any VRM can play.

    Args:
        humanoid: The person whose motion it is.
        clip: The motion, from `RiggedAvatar.clip`.
    """
    glb = motion_glb_bytes(humanoid.avatar.skeleton, humanoid.rest, humanoid.clip(clip))
    return with_extension(glb, "VRMC_vrm_animation", {"specVersion": "1.0", "humanoid": _human_bones(humanoid)})


def eyes(humanoid: Humanoid) -> Float[ndarray, "3"]:
    """The place between the eyes, from the head's joint, metres: of the body's own eyes, or as persons have them.

    Args:
        humanoid: The avatar in VRM's T-pose, in which no joint is turned.
    """
    joints = -humanoid.avatar.skeleton.inverse_bind[:, :3, 3]
    head = joints[humanoid.bones["head"]]
    sides = [humanoid.bones[bone] for bone in ("leftEye", "rightEye") if bone in humanoid.bones]
    if len(sides) == 2:
        return joints[sides].mean(axis=0) - head
    vertices = humanoid.avatar.mesh.positions
    height = _EYE_HEIGHT * vertices[:, 1].max()
    face = vertices[np.abs(vertices[:, 1] - height) < _EYE_BAND]
    ahead = float(face[:, 2].max()) if len(face) else float(head[2])
    return np.array([0.0, height - head[1], ahead - head[2]])


def _human_bones(humanoid: Humanoid) -> dict[str, Any]:
    return {"humanBones": {bone: {"node": 1 + joint} for bone, joint in humanoid.bones.items()}}
