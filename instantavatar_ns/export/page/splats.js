// Gaussian splats of KHR_gaussian_splatting that a skeleton moves, drawn back to front as squares in one call.

const SPLATS = "KHR_gaussian_splatting";
const TEXELS = 5; // of a splat: center and opacity, two halves of the covariance, color, joints and weights
const WIDTH = 2048; // texels of a row, which holds whole splats only
const ROW = Math.floor(WIDTH / TEXELS);
const BINS = 1 << 14; // of depth: less than a tenth of a millimeter each

const SHADOWED = 10000; // so many splats cast a shadow, or all where there are fewer than twice as many

// Of both passes: a splat's values, and the matrix that brings it from the pose of binding into the world.
const SKINNED = `
precision highp float;
precision highp sampler2D;
uniform sampler2D splats, boneTexture;
uniform mat4 viewMatrix, projectionMatrix; // the bones' matrices lead to the world already
uniform highp usampler2D order;
uniform vec2 pixels; // size of the picture

// Four vertices a splat, and no attributes: instances of a single square are slow on some GPUs.
int place() { return gl_VertexID / 4; }
vec2 corner() { return vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0; }

vec4 part(int splat, int index) {
  return texelFetch(splats, ivec2((splat % ${ROW}) * ${TEXELS} + index, splat / ${ROW}), 0);
}

mat4 bone(float joint) {
  int width = textureSize(boneTexture, 0).x, first = int(joint) * 4;
  mat4 matrix;
  for (int column = 0; column < 4; column++) {
    int place = first + column;
    matrix[column] = texelFetch(boneTexture, ivec2(place % width, place / width), 0);
  }
  return matrix;
}

mat4 skin(int splat) {
  vec4 joints = part(splat, 4), weights = vec4(fract(joints) * 2.0);
  joints = floor(joints);
  mat4 matrix = mat4(0.0);
  for (int k = 0; k < 4; k++) if (weights[k] > 0.0) matrix += weights[k] * bone(joints[k]);
  return matrix;
}
`;

const VERTEX = `${SKINNED}
out vec2 offset;
out vec4 color;

void main() {
  int splat = int(texelFetch(order, ivec2(place() % ${WIDTH}, place() / ${WIDTH}), 0).r);
  vec4 center = part(splat, 0), first = part(splat, 1), second = part(splat, 2);
  mat4 toWorld = skin(splat);
  vec4 view = viewMatrix * (toWorld * vec4(center.xyz, 1.0));
  vec4 clip = projectionMatrix * view;
  offset = vec2(0.0);
  color = vec4(0.0);
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside
  if (clip.w < 0.01) return;
  mat3 covariance = mat3(first.x, first.y, first.z, first.y, first.w, second.x, first.z, second.x, second.y);
  vec2 focal = 0.5 * pixels * vec2(projectionMatrix[0][0], projectionMatrix[1][1]);
  // Derivative of the place in the picture, pixels, by the place before the camera, which looks along -z.
  mat3 jacobian = mat3(focal.x / -view.z, 0, 0, 0, focal.y / -view.z, 0,
    focal.x * view.x / (view.z * view.z), focal.y * view.y / (view.z * view.z), 0);
  mat3 turn = jacobian * mat3(viewMatrix) * mat3(toWorld);
  mat3 flat3 = turn * covariance * transpose(turn);
  float a = flat3[0][0] + 0.3, b = flat3[0][1], c = flat3[1][1] + 0.3; // as trained: at least a pixel wide
  float mean = 0.5 * (a + c), spread = length(vec2(0.5 * (a - c), b));
  vec2 lengths = sqrt(vec2(mean + spread, max(mean - spread, 0.1)));
  vec2 axis = abs(b) < 1e-6 ? (a >= c ? vec2(1, 0) : vec2(0, 1)) : normalize(vec2(b, mean + spread - a));
  offset = corner() * 3.0;
  vec2 shift = offset.x * lengths.x * axis + offset.y * lengths.y * vec2(-axis.y, axis.x);
  color = vec4(part(splat, 3).rgb, center.w);
  gl_Position = vec4(clip.xy + 2.0 * shift / pixels * clip.w, clip.zw);
}`;

const FRAGMENT = `
precision highp float;
in vec2 offset;
in vec4 color;
out vec4 pixel;
void main() {
  float alpha = min(0.99, color.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(color.rgb * alpha, alpha);
}`;

// A square as large as the splats that it stands for, seen from the light.
const SHADOW_VERTEX = `${SKINNED}
uniform int standsFor;
void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside
  int splat = place();
  if (splat % standsFor != 0) return;
  vec4 center = part(splat, 0), first = part(splat, 1), second = part(splat, 2);
  float radius = sqrt(float(standsFor) * (first.x + first.w + second.y));
  vec4 view = viewMatrix * (skin(splat) * vec4(center.xyz, 1.0));
  gl_Position = projectionMatrix * (view + vec4(corner() * radius, 0.0, 0.0));
}`;
// Depth alone counts, but WebGL wants a color.
const SHADOW_FRAGMENT = `
out highp vec4 pixel;
void main() { pixel = vec4(1.0); }`;

/** Put splats in the place of the points that GLTFLoader makes of them. */
async function replaceSplats(gltf) {
  const found = [];
  gltf.scene.traverse((object) => object.isPoints && object.geometry.getAttribute(`${SPLATS}:SCALE`.toLowerCase()) && found.push(object));
  for (const points of found) {
    const node = gltf.parser.json.nodes[gltf.parser.associations.get(points)?.nodes ?? -1];
    if (node?.skin === undefined) throw new Error("the splats have no skeleton");
    const splats = new Splats(points.geometry, await gltf.parser.getDependency("skin", node.skin));
    splats.name = points.name;
    splats.applyMatrix4(points.matrix);
    points.parent.add(splats);
    points.removeFromParent();
    points.geometry.dispose();
  }
}

class Splats extends three.Mesh {
  constructor(source, skeleton) {
    const read = (name) => source.getAttribute(`${SPLATS}:${name}`.toLowerCase());
    const count = source.attributes.position.count;
    const geometry = new three.BufferGeometry();
    const corners = new Uint32Array(6 * count);
    for (let place = 0; place < count; place++) corners.set([0, 1, 2, 2, 1, 3].map((corner) => 4 * place + corner), 6 * place);
    geometry.setIndex(new three.BufferAttribute(corners, 1));
    const numbers = new Uint32Array(WIDTH * Math.ceil(count / WIDTH));
    const order = new three.DataTexture(numbers, WIDTH, numbers.length / WIDTH, three.RedIntegerFormat, three.UnsignedIntType);
    order.internalFormat = "R32UI";
    const texture = packed(source, read, count);
    super(geometry, new three.RawShaderMaterial({
      glslVersion: three.GLSL3,
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      uniforms: {
        splats: { value: texture },
        order: { value: order },
        boneTexture: { value: null },
        pixels: { value: new three.Vector2() },
      },
      transparent: true,
      depthWrite: false,
      blending: three.CustomBlending,
      blendSrc: three.OneFactor,
      blendDst: three.OneMinusSrcAlphaFactor,
    }));
    Object.assign(this, { skeleton, splatCount: count, order, frustumCulled: false });
    this.customDepthMaterial = new three.RawShaderMaterial({
      glslVersion: three.GLSL3,
      vertexShader: SHADOW_VERTEX,
      fragmentShader: SHADOW_FRAGMENT,
      uniforms: { ...this.material.uniforms, standsFor: { value: Math.max(1, Math.floor(count / SHADOWED)) } },
    });
    // Plain arrays: they are read for each picture.
    const { position, skinIndex, skinWeight } = source.attributes;
    this.centers = plain(position, Float32Array);
    this.joints = plain(skinIndex, Uint16Array);
    this.weights = plain(skinWeight, Float32Array);
    this.depths = new Float32Array(count);
    this.keys = new Uint16Array(count);
    this.bins = new Uint32Array(BINS + 1);
    skeleton.computeBoneTexture();
  }

  /** Place of a splat's center, as of SkinnedMesh. */
  getVertexPosition(index, target) {
    const sum = new three.Vector3(), point = new three.Vector3(), matrix = new three.Matrix4();
    for (let k = 0; k < 4; k++) {
      const joint = this.joints[4 * index + k], weight = this.weights[4 * index + k];
      matrix.multiplyMatrices(this.skeleton.bones[joint].matrixWorld, this.skeleton.boneInverses[joint]);
      sum.addScaledVector(point.fromArray(this.centers, 3 * index).applyMatrix4(matrix), weight);
    }
    return this.worldToLocal(target.copy(sum));
  }

  /** Call before a picture is drawn. */
  prepare(camera, size) {
    const { uniforms } = this.material;
    this.skeleton.update();
    uniforms.boneTexture.value = this.skeleton.boneTexture;
    uniforms.pixels.value.copy(size);
    this.sort(camera);
  }

  /** Order the splats from the farthest to the nearest, by counting. */
  sort(camera) {
    const { centers, joints, weights, depths, keys, bins, splatCount: count } = this;
    const order = this.order.image.data;
    const rows = new Float32Array(4 * this.skeleton.bones.length); // of the matrices: depths of points that a bone moves
    const matrix = new three.Matrix4();
    for (let joint = 0; joint < this.skeleton.bones.length; joint++) {
      matrix.fromArray(this.skeleton.boneMatrices, 16 * joint).premultiply(camera.matrixWorldInverse);
      for (let column = 0; column < 4; column++) rows[4 * joint + column] = matrix.elements[4 * column + 2];
    }
    let low = Infinity, high = -Infinity;
    for (let splat = 0; splat < count; splat++) {
      const x = centers[3 * splat], y = centers[3 * splat + 1], z = centers[3 * splat + 2];
      let depth = 0;
      for (let place = 4 * splat; place < 4 * splat + 4; place++) {
        const row = 4 * joints[place];
        depth += weights[place] * (rows[row] * x + rows[row + 1] * y + rows[row + 2] * z + rows[row + 3]);
      }
      depths[splat] = depth;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    const scale = (BINS - 1) / Math.max(high - low, 1e-6);
    bins.fill(0);
    for (let splat = 0; splat < count; splat++) {
      keys[splat] = (depths[splat] - low) * scale;
      bins[keys[splat] + 1]++;
    }
    for (let bin = 1; bin <= BINS; bin++) bins[bin] += bins[bin - 1];
    for (let splat = 0; splat < count; splat++) order[bins[keys[splat]]++] = splat;
    this.order.needsUpdate = true;
  }
}

/** An attribute's values, as numbers that they stand for, one point after the other. */
function plain(attribute, Type) {
  const size = attribute.itemSize;
  return Type.from({ length: size * attribute.count }, (_, index) => attribute.getComponent(Math.floor(index / size), index % size));
}

/** The splats' values in one texture; of their colors what is seen from everywhere. */
function packed(source, read, count) {
  const [scales, rotations, opacities, colors] = ["SCALE", "ROTATION", "OPACITY", "SH_DEGREE_0_COEF_0"].map(read);
  const { position, skinIndex, skinWeight } = source.attributes;
  const height = Math.ceil(count / ROW);
  const values = new Float32Array(4 * WIDTH * height);
  // Drafts of the extension store logarithms, which are negative for splats below a meter.
  const logarithms = scales.array.some((value) => value < 0);
  const turn = new three.Matrix4(), quaternion = new three.Quaternion();
  for (let splat = 0; splat < count; splat++) {
    const place = 4 * (WIDTH * Math.floor(splat / ROW) + TEXELS * (splat % ROW));
    const squares = [0, 1, 2].map((axis) => {
      const scale = scales.getComponent(splat, axis);
      return (logarithms ? Math.exp(scale) : scale) ** 2;
    });
    const axes = turn.makeRotationFromQuaternion(quaternion.fromBufferAttribute(rotations, splat).normalize()).elements;
    const covariance = (row, column) =>
      squares[0] * axes[row] * axes[column] + squares[1] * axes[4 + row] * axes[4 + column] + squares[2] * axes[8 + row] * axes[8 + column];
    values.set([
      position.getX(splat), position.getY(splat), position.getZ(splat), opacities.getX(splat),
      covariance(0, 0), covariance(0, 1), covariance(0, 2), covariance(1, 1),
      covariance(1, 2), covariance(2, 2), 0, 0,
      ...[0, 1, 2].map((channel) => 0.5 + 0.28209479177387814 * colors.getComponent(splat, channel)), 0,
      // A joint's number, and half its weight behind the point.
      ...[0, 1, 2, 3].map((k) => skinIndex.getComponent(splat, k) + 0.5 * Math.min(skinWeight.getComponent(splat, k), 0.9999)),
    ], place);
  }
  const texture = new three.DataTexture(values, WIDTH, height, three.RGBAFormat, three.FloatType);
  texture.needsUpdate = true;
  return texture;
}
