// Two clips in exact step: one clock, one frame number for both.

const PAUSE = 600; // milliseconds at the last frame before both begin again

export class Player {
  constructor(canvases, { place, play, speed }) {
    Object.assign(this, { canvases, place, play, speed, clips: null, at: 0, last: null, running: false, frame: -1 });
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    place.addEventListener("input", () => { this.stop(); this.at = Number(place.value) * this.step; this.#draw(); });
    play.addEventListener("click", () => this.toggle());
  }

  get frames() { return Math.max(...this.clips.map((clip) => clip.head.frames)); }
  get step() { return this.clips[0].head.milliseconds; }

  show(clips) {
    this.clips = clips;
    this.frame = -1;
    this.place.max = this.frames - 1;
    this.at = 0;
    if (this.calm.matches) this.stop();
    else this.start();
    this.#draw();
  }

  clear() {
    this.clips = null;
    this.running = false;
  }

  start() {
    if (!this.clips) return;
    if (this.at >= this.frames * this.step) this.at = 0;
    this.play.textContent = "Pause";
    this.last = null;
    if (!this.running) { this.running = true; requestAnimationFrame((now) => this.#tick(now)); }
  }

  stop() {
    this.running = false;
    this.play.textContent = "Play";
  }

  toggle() { this.running ? this.stop() : this.start(); }
  replay() { this.at = 0; this.start(); }

  faster(by) {
    const index = Math.min(Math.max(this.speed.selectedIndex + by, 0), this.speed.options.length - 1);
    this.speed.selectedIndex = index;
    return this.speed.options[index].text;
  }

  #tick(now) {
    if (!this.running || !this.clips) return;
    if (this.last !== null) this.at += (now - this.last) * Number(this.speed.value);
    this.last = now;
    const end = this.frames * this.step;
    if (this.at >= end + PAUSE * Number(this.speed.value)) {
      this.at = 0;
      if (this.calm.matches) { this.at = end - 1; this.stop(); } // played once, when asked to
    }
    this.#draw();
    if (this.running) requestAnimationFrame((then) => this.#tick(then));
  }

  #draw() {
    if (!this.clips) return;
    const frame = Math.min(Math.floor(this.at / this.step), this.frames - 1);
    if (frame === this.frame) return;
    this.frame = frame;
    this.clips.forEach((clip, i) => clip.draw(this.canvases[i], frame));
    this.place.value = frame;
    this.place.setAttribute("aria-valuetext", `frame ${frame + 1} of ${this.frames}`);
  }
}
