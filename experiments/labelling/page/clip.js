// A clip's file (clip_file.py): a line of JSON, then one image with all frames. Fetched early, decoded late.

const RETRY = 400; // milliseconds until a clip that was not ready is asked for again

export class Refused extends Error {} // the server says that there will be no such clip

export class Clip {
  constructor(url) {
    this.url = url;
    this.gone = new AbortController();
    this.head = null;
    this.image = null;
    this.loaded = this.#load();
    this.loaded.catch(() => {}); // told to whoever shows it
    this.decoded = null;
  }

  async #load() {
    for (;;) {
      let response = null;
      try {
        response = await fetch(this.url, { signal: this.gone.signal });
      } catch (error) {
        if (this.gone.signal.aborted) throw error; // otherwise the server is away: it will be told elsewhere
      }
      if (response && response.status === 200) return this.#read(new Uint8Array(await response.arrayBuffer()));
      if (response && response.status >= 400 && response.status < 500)
        throw new Refused((await response.json().catch(() => ({}))).error || `clip refused (${response.status})`);
      await new Promise((done) => setTimeout(done, RETRY));
      if (this.gone.signal.aborted) throw new DOMException("no longer wanted", "AbortError");
    }
  }

  #read(bytes) {
    const end = bytes.indexOf(10);
    this.head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
    this.file = new Blob([bytes.subarray(end + 1)], { type: this.head.type });
  }

  decode() {
    this.decoded ??= this.loaded.then(async () => {
      const image = await createImageBitmap(this.file);
      if (this.gone.signal.aborted) image.close();
      else this.image = image;
    });
    this.decoded.catch(() => {});
    return this.decoded;
  }

  draw(canvas, frame) {
    const { width, height, columns, frames } = this.head;
    const shown = Math.min(frame, frames - 1);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const from = [(shown % columns) * width, Math.floor(shown / columns) * height];
    canvas.getContext("2d").drawImage(this.image, ...from, width, height, 0, 0, width, height);
    canvas.dataset.frame = shown;
  }

  close() {
    this.gone.abort();
    this.image?.close();
    this.image = null;
  }
}

export class Shelf { // the clips of this pair, of those to come, and of the one before (for undo)
  #clips = new Map();

  get(url) {
    if (!this.#clips.has(url)) this.#clips.set(url, new Clip(url));
    return this.#clips.get(url);
  }

  keep(urls) {
    const wanted = new Set(urls);
    for (const [url, clip] of this.#clips) if (!wanted.has(url)) { clip.close(); this.#clips.delete(url); }
  }
}
