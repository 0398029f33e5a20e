// Shows pairs and sends answers. What was answered is kept (localStorage) until the server has acknowledged it.

import { Refused, Shelf } from "./clip.js";
import { Player } from "./player.js";

const TOO_SOON = 150; // milliseconds after a pair appears in which nobody can have judged it: a key pressed twice
const WAITS = [500, 1000, 2000, 4000]; // milliseconds until the next try, the last one for ever
const ASK_AGAIN = 2000;
const PENDING = "pbrl.pending.";
const SAID = { first: "left is better", second: "right is better", equal: "equally good", skip: "skipped" };
const KEYS = { ArrowLeft: "first", ArrowRight: "second", ArrowDown: "equal", ArrowUp: "skip", s: "skip" };

const $ = (id) => document.getElementById(id);
const figures = { first: $("first"), second: $("second") };
const canvases = [...document.querySelectorAll("canvas")];
const player = new Player(canvases, { place: $("place"), play: $("play"), speed: $("speed") });
const shelf = new Shelf();
const clock = { since: 0, hidden: 0, hiddenSince: null };

let annotator = null;
let now = null; // what the server said last: NEXT in server.py
let before = []; // addresses of the clips of the pair before
let ready = false; // both clips can be seen
let busy = false; // an answer or an undo is on its way
let poll = null;
let turn = 0; // counts pairs shown, so that what belongs to an earlier one is dropped

// ---- the server

class Wrong extends Error { constructor(status, words) { super(words); this.status = status; } }

async function once(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { ...options, cache: "no-store" });
  const found = await response.json().catch(() => null);
  if (response.ok && found) return found;
  throw new Wrong(response.status, found?.error || `the server said ${response.status}`);
}

async function ask(path, body) { // until there is an answer; only what trying again cannot mend is thrown
  for (let tries = 0; ; tries++) {
    try {
      const found = await once(path, body);
      trouble(null);
      return found;
    } catch (error) {
      if (error instanceof Wrong && error.status < 500) {
        if (error.status === 401)
          trouble("This page is not signed in (any more). Open the whole address again that pbrl label printed. "
            + (body ? "Your last answer is kept here until then." : ""));
        throw error;
      }
      if (tries > 0 || !(error instanceof TypeError))
        trouble((error instanceof Wrong ? `${error.message}. Trying again by itself. `
          : "The server does not answer; trying again by itself. ")
          + (body ? "Your answer is kept here and will be sent." : "Nothing is lost."));
      await new Promise((done) => setTimeout(done, WAITS[Math.min(tries, WAITS.length - 1)]));
    }
  }
}

function nonce() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- what was answered and is not acknowledged

const keep = (name, value) => { try { value === null ? localStorage.removeItem(name) : localStorage.setItem(name, value); } catch { /* private windows */ } };
const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const waiting = () => { try { return Object.keys(localStorage).filter((name) => name.startsWith(PENDING)); } catch { return []; } };

async function send(path, body, words) {
  busy = true;
  lock();
  const name = `${PENDING}${path}.${body.nonce}`; // another tab may have one, too
  keep(name, JSON.stringify({ path, body }));
  const slow = setTimeout(() => { $("progress-words").textContent = "Saving …"; }, 400);
  try {
    const found = await ask(path, body);
    keep(name, null);
    show(found.next, words);
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    if (error.status === 401) return; // kept for when the page is opened again
    keep(name, null);
    await next();
    trouble(`${error.message}. Nothing was changed.`);
  } finally {
    clearTimeout(slow);
    busy = false;
    lock();
  }
}

function answer(what) {
  if (busy || !now?.pair || (!ready && what !== "skip") || performance.now() - clock.since < TOO_SOON) return;
  figures[what]?.classList.add("chosen");
  const body = { pair: now.pair, annotator, answer: what, seconds: Math.min(seconds(), 86400), nonce: nonce() };
  before = [now.first, now.second];
  send("/api/answer", body, `Saved: ${SAID[what]}.`);
}

function undo() {
  if (busy || !now?.undo) return;
  send("/api/undo", { annotator, ...now.undo }, "Undone.");
}

async function next() {
  try {
    show(await ask(`/api/next?annotator=${encodeURIComponent(annotator)}`), "");
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    if (error.status !== 401) trouble(`${error.message}.`);
  }
}

// ---- showing

function show(found, words) {
  const same = now !== null && found.pair !== null && found.pair === now.pair;
  now = found;
  clearTimeout(poll);
  tell(found.progress);
  $("task").hidden = found.pair === null;
  $("nothing").hidden = found.pair !== null;
  lock();
  if (found.pair === null) return rest(found, words);
  shelf.keep([found.first, found.second, ...before, ...found.upcoming.flatMap((pair) => [pair.first, pair.second])]);
  $("question").textContent = found.question;
  if (!same || !ready) pair(found, words);
  else for (const figure of Object.values(figures)) figure.classList.remove("chosen"); // an answer that was refused
}

async function pair(found, words) {
  const mine = ++turn;
  const clips = [found.first, found.second].map((url) => shelf.get(url));
  ready = clips.every((clip) => clip.image);
  for (const figure of Object.values(figures)) figure.classList.remove("chosen");
  if (!ready) {
    player.clear();
    for (const [name, caption] of [["first", "Left"], ["second", "Right"]]) {
      figures[name].classList.add("waiting");
      figures[name].querySelector("figcaption").textContent = `${caption}: loading …`;
    }
    clock.since = performance.now();
    lock();
    try {
      await Promise.all(clips.map((clip) => clip.decode()));
    } catch (error) {
      if (mine !== turn || error.name === "AbortError") return;
      const why = error instanceof Refused ? error.message : "this clip cannot be shown";
      for (const figure of Object.values(figures)) figure.querySelector("figcaption").textContent = why;
      say(`${words} ${why}. Skip this pair.`);
      return;
    }
    if (mine !== turn) return;
  }
  ready = true;
  for (const [i, name] of ["first", "second"].entries()) {
    const side = i ? "Right" : "Left";
    figures[name].classList.remove("waiting");
    figures[name].querySelector("figcaption").textContent = side;
    canvases[i].setAttribute("aria-label", `${side} clip. ${clips[i].head.words}`);
  }
  player.show(clips);
  Object.assign(clock, { since: performance.now(), hidden: 0, hiddenSince: document.hidden ? performance.now() : null });
  lock();
  const { done, left } = found.progress;
  say(`${words} ${done} of ${done + left}. ${found.question} Left: ${clips[0].head.words} Right: ${clips[1].head.words}`);
  preload(found, mine);
}

async function preload(found, mine) { // the next pair whole, those after it as files alone
  for (const [i, coming] of found.upcoming.entries()) {
    const clips = [coming.first, coming.second].map((url) => shelf.get(url));
    try {
      await Promise.all(clips.map((clip) => (i ? clip.loaded : clip.decode())));
    } catch { /* told when it is its turn */ }
    if (mine !== turn) return;
  }
}

function rest(found, words) { // nothing to do
  turn++;
  ready = false;
  player.clear();
  const done = found.progress.done;
  const many = done === 1 ? "1 pair" : `${done} pairs`;
  $("nothing-title").textContent = found.waiting ? "No question just now" : done ? "All done. Thank you!" : "Nothing to label";
  $("nothing-words").textContent = found.waiting
    ? `New ones come by themselves: this page asks for them. You have answered ${many} so far.`
    : done ? `You have answered ${many}. All answers are saved; you can close this page.` : "There are no pairs for you.";
  $("undo-done").hidden = !found.undo;
  say(`${words} ${$("nothing-title").textContent}. ${$("nothing-words").textContent}`);
  if (found.waiting) poll = setTimeout(next, ASK_AGAIN);
}

function tell({ done, left, seconds_left: time }) {
  const all = done + left;
  const minutes = time === null ? null : Math.round(time / 60);
  const rest = time === null || !left ? "" : minutes < 1 ? " · less than a minute left" : ` · about ${minutes} min left`;
  $("progress").max = Math.max(all, 1);
  $("progress").value = done;
  $("progress-words").textContent = `${done} of ${all}${rest}`;
  document.title = left ? `${done} of ${all} · pbrl label` : "pbrl label";
}

function lock() {
  for (const button of document.querySelectorAll("[data-answer]"))
    button.disabled = busy || !now?.pair || (!ready && button.dataset.answer !== "skip");
  $("undo").disabled = $("undo-done").disabled = busy || !now?.undo;
}

function trouble(words) {
  if ($("trouble").textContent === (words ?? "")) return;
  $("trouble").hidden = words === null;
  $("trouble").textContent = words ?? "";
}

const say = (words) => { $("news").textContent = words.trim(); };

function seconds() { // since both clips could be seen, less the time in which the page was hidden
  return Math.max(0, (performance.now() - clock.since - clock.hidden) / 1000);
}

// ---- who

function begin(name) {
  annotator = name;
  keep("pbrl.annotator", name);
  $("welcome").hidden = true;
  for (const id of ["who", "progress", "progress-words"]) $(id).hidden = false;
  $("who").textContent = $("who").title = name;
  $("who").setAttribute("aria-label", `Labelling as ${name}. Change the name.`);
  now = null;
  const pending = waiting().map((key) => JSON.parse(kept(key) ?? "null")).filter((each) => each?.body?.annotator === name);
  if (!pending.length) return void next();
  (async () => { for (const { path, body } of pending) await send(path, body, "Saved."); })();
}

function welcome() {
  clearTimeout(poll);
  turn++;
  player.clear();
  now = null;
  for (const id of ["task", "nothing", "who", "progress", "progress-words"]) $(id).hidden = true;
  $("welcome").hidden = false;
  $("name").value = annotator ?? "";
  $("name").focus();
}

$("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim().normalize("NFC");
  const plain = name && [...name].length <= 64 && !/[\p{C}\p{Zl}\p{Zp}]/u.test(name);
  $("name-wrong").textContent = plain ? "" : "A name has 1 to 64 characters that can be printed.";
  if (!plain) return;
  begin(name);
  $("question").focus();
});
$("who").addEventListener("click", () => { if (!busy) welcome(); });

// ---- keys and buttons

for (const button of document.querySelectorAll("[data-answer]"))
  button.addEventListener("click", () => answer(button.dataset.answer));
$("undo").addEventListener("click", undo);
$("undo-done").addEventListener("click", undo);
$("replay").addEventListener("click", () => player.replay());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !annotator || !$("welcome").hidden) return;
  const control = event.target.closest?.("input, select, button, a");
  const typing = control?.matches("input, select");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in KEYS && !(typing && key.startsWith("Arrow"))) answer(KEYS[key]);
  else if (key === "u" || (key === "Backspace" && !typing)) undo();
  else if (key === "r") player.replay();
  else if (key === " " && !control) player.toggle();
  else if (key === "+" || key === "-") say(`Speed ${player.faster(key === "+" ? 1 : -1)}.`);
  else return;
  event.preventDefault();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clock.hiddenSince = performance.now();
  else if (clock.hiddenSince !== null) {
    clock.hidden += performance.now() - clock.hiddenSince;
    clock.hiddenSince = null;
  }
});

lock();
if (location.search) history.replaceState(null, "", "/"); // the token is in a cookie by now
const known = kept("pbrl.annotator");
if (known) begin(known);
else welcome();
