// The avatar of the GLB: its bones, its clips, and the joints that the sliders bend.

const STAND = "Stand";
// To see how much space each clip needs.
const LOOKS = 24, LOOKED_AT = 1000; // moments and vertices

function decoded(text) {
  const characters = atob(text.trim());
  const bytes = new Uint8Array(characters.length);
  for (let index = 0; index < bytes.length; index++) bytes[index] = characters.charCodeAt(index);
  return bytes;
}

class Avatar {
  /** @param gltf as GLTFLoader returns it; `root`, of this object, stands at the origin and faces z. */
  constructor(gltf) {
    this.root = new three.Group();
    this.root.add(gltf.scene);
    this.meshes = [];
    this.bones = {};
    gltf.scene.traverse((object) => {
      if (object.isBone) this.bones[object.name] = object;
      if (!object.isMesh) return;
      object.castShadow = object.isSkinnedMesh === true || object.splatCount > 0;
      object.frustumCulled = false; // the bounds are those of the rest pose
      this.meshes.push(object);
    });
    // The pose before the sliders bend it.
    this.unbent = new Map(Object.values(this.bones).map((bone) => [bone, bone.quaternion.clone()]));
    this.bends = [];
    this.mixer = new three.AnimationMixer(gltf.scene);
    this.clips = [standing(this.bones), ...gltf.animations];
    for (const clip of this.clips) if (!(clip.duration > 0)) clip.duration = 1; // a single pose
    this.actions = this.clips.map((clip) => this.mixer.clipAction(clip));
    this.current = 0;
    this.play(0);
    this.center(gltf.scene);
  }

  get clip() {
    return this.clips[this.current];
  }

  get time() {
    return this.actions[this.current].time;
  }

  /** If the clip before the current one still has a share in the pose. */
  get fading() {
    return this.actions.some((action, index) => index !== this.current && action.isRunning());
  }

  /** Put the pelvis of the rest pose above the origin, facing z. */
  center(scene) {
    scene.updateMatrixWorld(true);
    const pelvis = this.bones.pelvis ?? Object.values(this.bones)[0];
    const place = new three.Vector3().setFromMatrixPosition(pelvis.matrixWorld);
    const ahead = new three.Vector3().setFromMatrixColumn(pelvis.matrixWorld, 2);
    const turn = new three.Group();
    turn.rotation.y = -Math.atan2(ahead.x, ahead.z);
    scene.position.x -= place.x;
    scene.position.z -= place.z;
    turn.add(scene);
    this.root.add(turn);
    this.root.updateMatrixWorld(true);
  }

  /** Show a clip from its start; fade over some seconds from what is shown. */
  play(index, seconds = 0) {
    const [last, next] = [this.actions[this.current], this.actions[index]];
    this.withoutBends(() => {
      for (const action of this.actions) if (action !== last || seconds === 0) action.stop();
      next.reset().setEffectiveWeight(1).play();
      if (seconds > 0 && last !== next) next.crossFadeFrom(last, seconds, false);
    });
    this.current = index;
    this.advance(0);
  }

  seek(time) {
    const current = this.actions[this.current];
    this.withoutBends(() => {
      for (const action of this.actions) if (action !== current) action.stop();
      current.stopFading().setEffectiveWeight(1).time = time;
    });
    this.advance(0);
  }

  /** Go on in the clip, then bend the joints. */
  advance(seconds) {
    this.withoutBends(() => this.mixer.update(seconds));
    for (const [bone, turn] of this.bends) bone.quaternion.multiply(turn);
  }

  /** Let the mixer change the bones: it writes only what it takes for changed, so it must find what it wrote last. */
  withoutBends(change) {
    for (const [bone, quaternion] of this.unbent) bone.quaternion.copy(quaternion);
    change();
    for (const [bone, quaternion] of this.unbent) quaternion.copy(bone.quaternion);
  }

  /** @param turns axis-angle vectors by the joints' names, radians, in the joints' own axes. */
  bend(turns) {
    this.bends = [];
    for (const [name, vector] of Object.entries(turns)) {
      const axis = new three.Vector3(...vector), angle = axis.length();
      if (angle === 0 || !(name in this.bones)) continue;
      this.bends.push([this.bones[name], new three.Quaternion().setFromAxisAngle(axis.divideScalar(angle), angle)]);
    }
    this.advance(0);
  }

  /** Where the pelvis is, in the axes of `root`. */
  place() {
    this.root.updateMatrixWorld(true);
    const pelvis = this.bones.pelvis ?? Object.values(this.bones)[0];
    return this.root.worldToLocal(new three.Vector3().setFromMatrixPosition(pelvis.matrixWorld));
  }

  /** A value of the pose from the clips' values: the mean, each clip's by its share in the pose. */
  blended(values) {
    const shares = this.actions.map((action) => (action.isRunning() ? action.getEffectiveWeight() : 0));
    const total = shares.reduce((sum, share) => sum + share, 0);
    if (total === 0) return values[this.current];
    return shares.reduce((sum, share, index) => sum + share * values[index], 0) / total;
  }

  /**
   * What the avatar needs of space in all clips: each clip's lowest point, in the axes of `root`, which is its floor;
   * the highest point above that; heights above it and distances from the vertical axis that the camera turns around;
   * and for each clip if it travels, so that this axis has to follow the pelvis.
   */
  extent() {
    const extent = { floors: [], high: 0, radius: 0, points: [], travels: [] };
    const point = new three.Vector3();
    for (let clip = 0; clip < this.clips.length; clip++) {
      this.play(clip);
      const times = Array.from({ length: clip === 0 ? 1 : LOOKS }, (_, look) => (this.clip.duration * look) / LOOKS);
      const places = times.map((time) => (this.seek(time), this.place()));
      const travels = Math.max(...places.map((place) => Math.hypot(place.x, place.z))) > 0.5;
      extent.travels.push(travels);
      const points = [];
      for (let look = 0; look < times.length; look++) {
        this.seek(times[look]);
        const place = this.place(); // and all matrices
        const axis = travels ? place : new three.Vector3();
        for (const mesh of this.meshes) {
          const count = mesh.splatCount ?? mesh.geometry.attributes.position.count; // of splats, or vertices
          for (let vertex = 0; vertex < count; vertex += Math.max(1, Math.floor(count / LOOKED_AT))) {
            this.root.worldToLocal(mesh.localToWorld(mesh.getVertexPosition(vertex, point)));
            points.push([point.y, Math.hypot(point.x - axis.x, point.z - axis.z)]);
          }
        }
      }
      const floor = points.reduce((low, [height]) => Math.min(low, height), Infinity);
      extent.floors.push(floor);
      for (const [height, radius] of points) {
        extent.points.push([height - floor, radius]);
        extent.high = Math.max(extent.high, height - floor);
        extent.radius = Math.max(extent.radius, radius);
      }
    }
    this.play(0);
    return extent;
  }
}

/** The rest pose as a clip, so that it is chosen and faded to as the others. */
function standing(bones) {
  const tracks = Object.values(bones).flatMap((bone) => [
    new three.QuaternionKeyframeTrack(`${bone.name}.quaternion`, [0], bone.quaternion.toArray()),
    new three.VectorKeyframeTrack(`${bone.name}.position`, [0], bone.position.toArray()),
  ]);
  return new three.AnimationClip(STAND, 1, tracks);
}

async function loadAvatar(bytes) {
  const loader = new three.GLTFLoader().setMeshoptDecoder(three.MeshoptDecoder);
  const gltf = await loader.parseAsync(bytes.buffer, "");
  await replaceSplats(gltf);
  return new Avatar(gltf);
}
