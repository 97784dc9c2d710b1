// The parts of three.js that instantavatar_ns/export/page/page.js uses, in one script that needs no network.
export {
  AnimationClip,
  AnimationMixer,
  BufferGeometry,
  CircleGeometry,
  DirectionalLight,
  Float32BufferAttribute,
  Group,
  MathUtils,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  PCFShadowMap,
  PerspectiveCamera,
  PlaneGeometry,
  Quaternion,
  QuaternionKeyframeTrack,
  REVISION,
  RingGeometry,
  Scene,
  ShadowMaterial,
  Spherical,
  VSMShadowMap,
  Vector3,
  VectorKeyframeTrack,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
export { MeshoptDecoder } from "meshoptimizer/decoder";
