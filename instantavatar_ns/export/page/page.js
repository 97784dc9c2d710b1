// The controls, and the loop that draws a picture where something has changed.

const FADE = 0.3; // seconds from one clip to the next
const element = (id) => document.getElementById(id);
const facts = JSON.parse(element("facts").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Page {
  constructor(avatar) {
    this.avatar = avatar;
    this.view = new View(element("view"), avatar);
    this.playing = false;
    this.changed = true;
    this.last = null;
    this.sliders = [];
    this.addMotions();
    this.addSliders();
    this.listen();
    this.view.setDark(dark.matches);
    this.reset();
    this.view.renderer.setAnimationLoop((time, frame) => this.draw(time, frame));
  }

  addMotions() {
    const choices = this.avatar.clips.map((clip, index) => {
      const input = make("input", { type: "radio", name: "motion", value: String(index) });
      input.addEventListener("change", () => this.choose(index));
      return make("label", { className: "choice", title: clip.name }, input, make("span", { textContent: clip.name }));
    });
    element("motions").append(make("div", { className: "choices" }, ...choices));
    this.choices = choices.map((label) => label.firstChild);
  }

  addSliders() {
    for (const [limb, axes] of Object.entries(facts.sliders)) {
      const usable = axes.filter((axis) => axis.joints.every((joint) => joint in this.avatar.bones));
      if (usable.length === 0) continue;
      const rows = usable.map((axis) => {
        const [min, max] = axis.range;
        const input = make("input", { type: "range", min, max, step: 1, value: 0 });
        input.setAttribute("aria-label", `${limb}: ${axis.label}`);
        const output = make("output", { textContent: "0°" });
        input.addEventListener("input", () => this.bend());
        this.sliders.push({ axis, input, output });
        return make("label", { className: "joint" }, make("span", { textContent: axis.label }), input, output);
      });
      element("joints").append(make("fieldset", {}, make("legend", { textContent: limb }), ...rows));
    }
    element("joints").hidden = this.sliders.length === 0;
  }

  listen() {
    const view = element("view");
    element("play").addEventListener("click", () => this.setPlaying(!this.playing));
    element("time").addEventListener("input", (event) => {
      this.setPlaying(false);
      this.seek(event.target.value * this.avatar.clip.duration);
    });
    element("speed").addEventListener("change", () => (this.changed = true));
    element("turn").addEventListener("click", () => this.setTurning(!this.view.controls.autoRotate));
    element("reset").addEventListener("click", () => this.reset());
    view.addEventListener("keydown", (event) => this.key(event));
    this.view.controls.addEventListener("change", () => (this.changed = true));
    this.view.controls.addEventListener("start", () => this.setTurning(false));
    dark.addEventListener("change", () => {
      this.view.setDark(dark.matches);
      this.changed = true;
    });
    new ResizeObserver(() => this.resize()).observe(view);
    this.resize();
  }

  resize() {
    const view = element("view");
    this.view.resize(view.clientWidth, view.clientHeight, devicePixelRatio);
    this.changed = true;
  }

  key(event) {
    const step = 0.12;
    const looks = {
      ArrowLeft: [-step, 0, 1],
      ArrowRight: [step, 0, 1],
      ArrowUp: [0, step, 1],
      ArrowDown: [0, -step, 1],
      "+": [0, 0, 1.1],
      "=": [0, 0, 1.1],
      "-": [0, 0, 1 / 1.1],
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") this.setPlaying(!this.playing);
    else if (event.key in looks) this.view.look(...looks[event.key]);
    else return;
    event.preventDefault();
    this.changed = true;
  }

  choose(index) {
    this.avatar.play(index, calm.matches ? 0 : FADE);
    this.choices[index].checked = true;
    for (const id of ["play", "time", "speed"]) element(id).disabled = index === 0;
    this.setPlaying(!calm.matches);
    this.seekShown();
  }

  setPlaying(playing) {
    this.playing = playing;
    element("play").textContent = playing ? "Pause" : "Play";
    this.changed = true;
  }

  setTurning(turning) {
    this.view.controls.autoRotate = turning;
    element("turn").setAttribute("aria-pressed", String(turning));
    this.changed = true;
  }

  seek(time) {
    this.avatar.seek(time);
    this.seekShown();
  }

  /** Show the clip's time on the controls. */
  seekShown() {
    const { clip, time, current } = this.avatar;
    element("time").value = String(time / clip.duration);
    element("clock").textContent = current === 0 ? "" : `${time.toFixed(1)} / ${clip.duration.toFixed(1)} s`;
    this.changed = true;
  }

  bend() {
    const turns = {};
    for (const { axis, input, output } of this.sliders) {
      output.textContent = `${input.value}°`;
      const share = three.MathUtils.degToRad(Number(input.value)) / axis.joints.length;
      for (const joint of axis.joints) {
        turns[joint] = (turns[joint] ?? [0, 0, 0]).map((value, place) => value + share * axis.axis[place]);
      }
    }
    this.avatar.bend(turns);
    this.changed = true;
  }

  reset() {
    for (const { input } of this.sliders) input.value = "0";
    element("speed").value = "1";
    this.setTurning(false);
    this.choose(this.avatar.clips.length > 1 ? 1 : 0);
    this.bend();
    this.view.home();
  }

  draw(now, frame) {
    const seconds = this.last === null ? 0 : Math.min((now - this.last) / 1000, 0.1);
    this.last = now;
    if (this.playing) {
      this.avatar.advance(seconds * Number(element("speed").value));
      this.seekShown();
      if (this.avatar.current === 0 && !this.avatar.fading) this.setPlaying(false); // nothing moves
    }
    if (frame) this.room.update(frame);
    else if (this.view.controls.update(seconds)) this.changed = true;
    if (!this.changed && !frame) return;
    this.changed = false;
    if (!frame) this.view.follow();
    this.view.render();
  }

  async offerRoom(usdz) {
    const button = element("room");
    if (await supportsWebXR()) {
      this.room = new Room(this.view, element("overlay"), () => this.resize());
      button.addEventListener("click", () => this.room.enter().catch((error) => show(`The room cannot be shown: ${error.message}`)));
    } else if (usdz && supportsQuickLook()) {
      button.addEventListener("click", () => openQuickLook(usdz, document.title));
    } else return;
    button.hidden = false;
  }
}

function show(text) {
  element("message").textContent = text;
}

try {
  const page = new Page(await loadAvatar(decoded(element("glb").textContent)));
  show("");
  document.body.dataset.state = "ready";
  const usdz = element("usdz").textContent.trim();
  await page.offerRoom(usdz && decoded(usdz));
} catch (error) {
  document.body.dataset.state = "failed";
  const webgl = document.createElement("canvas").getContext("webgl2") !== null;
  show(webgl ? `The avatar cannot be shown: ${error.message}` : "This browser cannot show 3D: WebGL 2 is switched off or missing.");
}
