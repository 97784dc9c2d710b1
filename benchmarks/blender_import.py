"""Import a GLB into Blender and write down what Blender has then; runs in Blender's Python, which has NumPy alone.

    path/to/python-with-bpy benchmarks/blender_import.py avatar.glb result.npz
    blender --background --factory-startup --python benchmarks/blender_import.py -- avatar.glb result.npz

Places are glTF's, y up, metres. `benchmarks/blender.py` starts it and compares.
"""

import sys

import bpy
import numpy as np

Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # Blender's world has z up
SAMPLES = (0.0, 0.4, 0.9)  # shares of a clip at which its vertices are written


def main(path: str, result: str) -> None:
    """Import a file and write the figures.

    Args:
        path: A GLB.
        result: The .npz to write.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    (armature,) = (thing for thing in bpy.data.objects if thing.type == "ARMATURE")
    (body,) = (thing for thing in bpy.data.objects if thing.type == "MESH" and thing.find_armature() == armature)
    names = [bone.name for bone in armature.data.bones]
    figures = {
        "version": bpy.app.version_string,
        "names": names,
        "parents": [names.index(bone.parent.name) if bone.parent else -1 for bone in armature.data.bones],
        "weights": weights(body, names),
        "clips": [track.name for track in armature.animation_data.nla_tracks] if armature.animation_data else [],
    }
    armature.data.pose_position = "REST"
    figures["rest_vertices"] = vertices(body)
    figures["rest_linear"] = np.array(
        [np.array(armature.matrix_world @ bone.matrix_local)[:3, :3] for bone in armature.data.bones]
    )
    armature.data.pose_position = "POSE"
    seconds, posed, linear = [], [], []
    for name in figures["clips"]:
        for track in armature.animation_data.nla_tracks:
            track.mute = track.name != name
            if track.name == name:
                (strip,) = track.strips
        armature.animation_data.action = None
        first, last = strip.frame_start, strip.frame_end
        seconds.append((last - first) / rate())
        for share in SAMPLES:
            frame = first + share * (last - first)
            bpy.context.scene.frame_set(int(frame), subframe=frame - int(frame))
            posed.append(vertices(body))
            linear += [np.array(armature.matrix_world @ bone.matrix)[:3, :3] for bone in armature.pose.bones]
    np.savez(result, seconds=seconds, posed=posed, posed_linear=linear, samples=SAMPLES, **figures)


def rate() -> float:
    """Frames a second of the scene."""
    render = bpy.context.scene.render
    return render.fps / render.fps_base


def weights(body: "bpy.types.Object", names: list[str]) -> np.ndarray:
    """Skinning weights of all vertices, one column a bone.

    Args:
        body: The mesh.
        names: Of the bones.
    """
    columns = {group.index: names.index(group.name) for group in body.vertex_groups}
    found = np.zeros((len(body.data.vertices), len(names)))
    for vertex in body.data.vertices:
        for group in vertex.groups:
            found[vertex.index, columns[group.group]] = group.weight
    return found


def vertices(body: "bpy.types.Object") -> np.ndarray:
    """Vertices as they are shown, metres, y up.

    Args:
        body: The mesh.
    """
    bpy.context.view_layer.update()
    shown = body.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = shown.to_mesh()
    flat = np.zeros(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", flat)
    world = np.array(shown.matrix_world)
    shown.to_mesh_clear()
    return (flat.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]) @ Y_UP.T


if __name__ == "__main__":
    main(*sys.argv[-2:])
