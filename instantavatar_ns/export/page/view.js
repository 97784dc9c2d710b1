// The window onto the avatar: camera, floor and shadow, and a size at which the whole person is in the picture.

const FIELD_OF_VIEW = 28; // degrees
const ELEVATION = 7; // degrees
const MARGIN = 1.07;

class View {
  constructor(canvas, avatar) {
    this.avatar = avatar;
    // Splats have soft edges: to blend them in four samples a pixel is lost time.
    const antialias = !avatar.meshes.some((mesh) => mesh.splatCount > 0);
    this.renderer = new three.WebGLRenderer({ canvas, antialias, alpha: true });
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = three.VSMShadowMap;
    this.camera = new three.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 100);
    this.scene = new three.Scene();
    this.place = new three.Group(); // where the avatar stands in a room
    this.scene.add(this.place);
    this.place.add(avatar.root);
    this.extent = avatar.extent();
    this.middle = 0.5 * this.extent.high;
    this.followed = new three.Vector3();
    this.addGround();
    this.controls = new three.OrbitControls(this.camera, canvas);
    this.controls.zoomToCursor = true;
    this.controls.autoRotateSpeed = 3;
    this.controls.maxPolarAngle = 0.55 * Math.PI;
    this.distance = 0;
  }

  addGround() {
    const shadow = new three.Mesh(new three.PlaneGeometry(8, 8), new three.ShadowMaterial());
    shadow.receiveShadow = true;
    const disc = new three.CircleGeometry(1, 64);
    const alpha = Array.from({ length: disc.attributes.position.count }, (_, vertex) => [1, 1, 1, vertex === 0 ? 1 : 0]);
    disc.setAttribute("color", new three.Float32BufferAttribute(alpha.flat(), 4));
    this.floor = new three.Mesh(disc, new three.MeshBasicMaterial({ vertexColors: true, transparent: true, depthWrite: false }));
    this.floor.scale.setScalar(1.9 * this.extent.radius);
    // Before splats, which do not hide in the buffer of depths what is drawn later.
    this.floor.renderOrder = shadow.renderOrder = -1;
    this.shadow = shadow;
    const light = new three.DirectionalLight();
    light.position.set(0.3, 5, 0.6);
    light.castShadow = true;
    light.shadow.mapSize.set(256, 256);
    light.shadow.radius = 7;
    light.shadow.blurSamples = 12;
    light.shadow.bias = -0.002;
    const reach = 1.3 * this.extent.radius;
    Object.assign(light.shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 1, far: 7 });
    this.ground = new three.Group();
    for (const [mesh, height] of [[shadow, 0.002], [this.floor, 0]]) {
      mesh.rotation.x = -0.5 * Math.PI;
      mesh.position.y = height;
      this.ground.add(mesh);
    }
    this.ground.add(light, light.target);
    this.place.add(this.ground);
  }

  setDark(dark) {
    this.floor.material.color.set(dark ? 0xffffff : 0x8d8778);
    this.floor.material.opacity = dark ? 0.1 : 0.22;
    this.shadow.material.opacity = dark ? 0.6 : 0.34;
  }

  /** The distance from which all clips are in the picture, from every side at the usual elevation. */
  fitting() {
    const slope = Math.tan(three.MathUtils.degToRad(0.5 * FIELD_OF_VIEW));
    const elevation = three.MathUtils.degToRad(ELEVATION);
    const [sine, cosine] = [Math.sin(elevation), Math.cos(elevation)];
    let distance = 0;
    for (const [height, radius] of this.extent.points) {
      const above = height - this.middle;
      for (const ahead of [radius, -radius]) {
        const depth = ahead * cosine + above * sine;
        distance = Math.max(distance, Math.abs(above * cosine - ahead * sine) / slope + depth);
      }
      // Where a line from the camera touches the circle that the point turns on.
      distance = Math.max(distance, radius / Math.sin(Math.atan(slope * this.camera.aspect)) + above * sine);
    }
    return MARGIN * distance;
  }

  /** Take the size of the window; what was in the picture stays in it. */
  resize(width, height, ratio) {
    if (width === 0 || height === 0 || this.renderer.xr.isPresenting) return;
    this.renderer.setPixelRatio(Math.min(ratio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    const [before, distance] = [this.distance, this.fitting()];
    this.distance = distance;
    this.controls.minDistance = 0.15 * distance;
    this.controls.maxDistance = 2.5 * distance;
    if (before === 0) return this.home();
    this.camera.position.sub(this.controls.target).multiplyScalar(distance / before).add(this.controls.target);
  }

  /** Look from the front at the whole person. */
  home() {
    const tilt = three.MathUtils.degToRad(ELEVATION);
    this.followed.setScalar(0);
    this.follow();
    this.controls.target.set(this.followed.x, this.middle, this.followed.z);
    this.camera.position.set(0, Math.sin(tilt), Math.cos(tilt)).multiplyScalar(this.distance).add(this.controls.target);
    this.controls.update();
  }

  /** Keep beside an avatar that travels. */
  follow() {
    const goal = new three.Vector3();
    if (this.extent.travels[this.avatar.current]) goal.copy(this.avatar.place()).setY(0);
    this.ground.position.copy(goal);
    const step = goal.clone().sub(this.followed);
    this.followed.copy(goal);
    this.controls.target.add(step);
    this.camera.position.add(step);
  }

  /** Turn by angles to the right and up, radians, and come nearer by a factor. */
  look(right, up, nearer) {
    const offset = this.camera.position.clone().sub(this.controls.target);
    const sphere = new three.Spherical().setFromVector3(offset);
    sphere.theta += right;
    sphere.phi = three.MathUtils.clamp(sphere.phi - up, 0.05, this.controls.maxPolarAngle);
    sphere.radius = three.MathUtils.clamp(sphere.radius / nearer, this.controls.minDistance, this.controls.maxDistance);
    this.camera.position.setFromSpherical(sphere).add(this.controls.target);
    this.controls.update();
  }

  render() {
    const { xr } = this.renderer;
    const size = this.renderer.getDrawingBufferSize(new three.Vector2());
    // Each clip's lowest point touches the floor: a file's clips may lie higher or lower than the pose that they start in.
    this.avatar.root.position.y = -this.avatar.blended(this.extent.floors);
    this.scene.updateMatrixWorld();
    this.camera.updateMatrixWorld();
    for (const mesh of this.avatar.meshes) mesh.prepare?.(xr.isPresenting ? xr.getCamera() : this.camera, size);
    this.renderer.render(this.scene, this.camera);
  }
}
