// The avatar in the room that the phone's camera sees: WebXR on Android, Quick Look on iPhones and iPads.

async function supportsWebXR() {
  try {
    return (await navigator.xr?.isSessionSupported("immersive-ar")) ?? false;
  } catch {
    return false; // a frame or a policy forbids it
  }
}

function supportsQuickLook() {
  // Other browsers of iOS open such links too, but do not say so.
  return document.createElement("a").relList.supports?.("ar") || /(CriOS|EdgiOS|FxiOS)\//.test(navigator.userAgent);
}

function openQuickLook(usdz, name) {
  const link = document.createElement("a");
  link.rel = "ar";
  link.href = URL.createObjectURL(new Blob([usdz], { type: "model/vnd.usdz+zip" }));
  link.download = `${name}.usdz`;
  link.append(document.createElement("img")); // without a picture it is an ordinary link
  link.click();
}

class Room {
  /** @param overlay element that is shown above the camera's picture; `ended` is called after the session. */
  constructor(view, overlay, ended) {
    this.view = view;
    this.overlay = overlay;
    this.guide = overlay.querySelector("#guide");
    this.ended = ended;
    this.mark = new three.Mesh(
      new three.RingGeometry(0.13, 0.16, 48).rotateX(-0.5 * Math.PI),
      new three.MeshBasicMaterial({ color: 0xffffff }),
    );
    this.mark.matrixAutoUpdate = this.mark.visible = false;
    view.scene.add(this.mark);
    const leave = overlay.querySelector("#leave");
    leave.addEventListener("click", () => this.session?.end());
    leave.addEventListener("beforexrselect", (event) => event.preventDefault()); // it is no tap on the floor
  }

  async enter() {
    const { renderer, camera } = this.view;
    const session = await navigator.xr.requestSession("immersive-ar", {
      requiredFeatures: ["hit-test"],
      optionalFeatures: ["dom-overlay"],
      domOverlay: { root: this.overlay },
    });
    this.session = session;
    this.before = { camera: camera.clone(), controls: this.view.controls.target.clone() };
    session.addEventListener("end", () => this.leave());
    session.addEventListener("select", () => this.put());
    renderer.xr.enabled = true;
    renderer.xr.setReferenceSpaceType("local");
    this.overlay.hidden = false;
    this.view.place.visible = this.view.floor.visible = this.view.controls.enabled = false;
    this.say("Point the phone at the floor and move it slowly");
    await renderer.xr.setSession(session);
    this.rays = await session.requestHitTestSource({ space: await session.requestReferenceSpace("viewer") });
  }

  /** Mark the floor where the phone points at it. */
  update(frame) {
    if (!this.rays || !frame) return;
    const [hit] = frame.getHitTestResults(this.rays);
    const pose = hit?.getPose(this.view.renderer.xr.getReferenceSpace());
    if (pose && !this.mark.visible && !this.view.place.visible) this.say("Tap to put the person there");
    this.mark.visible = Boolean(pose) && !this.view.place.visible;
    this.found = Boolean(pose);
    if (pose) this.mark.matrix.fromArray(pose.transform.matrix);
  }

  /** Put the avatar on the mark, facing the phone. */
  put() {
    if (!this.found) return;
    const { place, renderer } = this.view;
    place.position.setFromMatrixPosition(this.mark.matrix);
    const phone = new three.Vector3().setFromMatrixPosition(renderer.xr.getCamera().matrixWorld);
    place.rotation.y = Math.atan2(phone.x - place.position.x, phone.z - place.position.z);
    place.visible = true;
    this.say("Tap elsewhere to move the person");
  }

  say(text) {
    this.guide.textContent = text;
  }

  leave() {
    const { view, before } = this;
    this.session = this.rays = this.found = undefined;
    view.renderer.xr.enabled = false;
    this.overlay.hidden = true;
    this.mark.visible = false;
    view.place.position.setScalar(0);
    view.place.rotation.y = 0;
    view.place.visible = view.floor.visible = view.controls.enabled = true;
    view.camera.copy(before.camera);
    view.controls.target.copy(before.controls);
    this.ended();
  }
}
