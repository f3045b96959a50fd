// The page holds what the server keeps and nothing more: runs that the server forgets are forgotten here. Of all runs
// it is told what the list shows, and everything of the one that it asked for.
// All text goes in as text nodes, so nothing that a program reports can become markup.
"use strict";

const runs = new Map();
const rows = new Map();
const byId = (id) => document.getElementById(id);
const LIGHT = new Set(["id", "name", "state", "done", "total", "rate", "begun", "ended"]);
const KINDS = ["start", "init", "wait", "work", "exit"];
const WORDS = { start: "starting", init: "init", wait: "waiting", work: "busy", exit: "exit", dead: "dead", none: "gone" };
let chosen = null;
let pinned = false;
let detail = null;
let ahead = 0; // seconds by which the server's clock is before ours
let lost = false;
let page = ""; // what the server knows this page by
let asked = null; // the run whose details we want
let question = null; // under way to the server

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// Writing a text that is there already would still cost a layout.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function duration(seconds) {
  if (seconds === null || !isFinite(seconds)) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

function count(n) {
  return n.toLocaleString("en").replaceAll(",", "\u202f");
}

function perSecond(value) {
  if (value === null) return "–";
  if (value === 0) return "0";
  if (value > 0 && value < 1) return `${duration(1 / value)} each`;
  return `${value < 10 ? value.toFixed(1) : count(Math.round(value))}/s`;
}

// Attributes as texts: the same value again would still be work.
function set(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function dress(node, className) {
  if (node.className !== className) node.className = className;
}

function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

function widen(node, share) {
  const width = share === null ? "" : `${(share * 100).toFixed(2).replace(/\.?0+$/, "")}%`;
  if (node.dataset.width !== width) {
    node.dataset.width = width;
    node.style.width = width;
  }
}

function elapsed(run) {
  return Math.max(0, (run.ended ?? Date.now() / 1000 + ahead) - run.begun);
}

function remaining(run) {
  if (run.state !== "running" || run.total === null || !run.rate) return null;
  return (run.total - run.done) / run.rate;
}

function part(run) {
  if (run.total) return Math.min(1, run.done / run.total);
  return run.state === "done" ? 1 : null;
}

function progress(run) {
  const total = run.total === null ? "" : ` / ${count(run.total)}`;
  return `${count(run.done)}${total}`;
}

function clock(seconds) {
  if (seconds === null) return "–";
  const when = new Date(seconds * 1000);
  const today = new Date().toDateString() === when.toDateString();
  return today ? when.toLocaleTimeString() : when.toLocaleString();
}

function setBar(track, fill, run) {
  const share = part(run);
  dress(track, share === null ? "track unknown" : "track");
  widen(fill, share);
  if (share === null) track.removeAttribute("aria-valuenow");
  else set(track, "aria-valuenow", `${Math.round(share * 100)}`);
}

function makeBar() {
  const fill = make("div", "fill");
  const track = make("div", "track", fill);
  track.setAttribute("role", "progressbar");
  track.setAttribute("aria-valuemin", 0);
  track.setAttribute("aria-valuemax", 100);
  track.setAttribute("aria-label", "tasks done");
  return [track, fill];
}

// ---- What is drawn, and when -------------------------------------------------------------------------------------

// Rows and lanes that are behind are drawn with the next frame when they are in sight or near it, and else when they
// come there. So news of hundreds of runs cost what can be seen of them, however often they come.
const behind = new Set();
const near = new Set();
const owners = new WeakMap();
let frame = 0;

const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const owner = owners.get(entry.target);
    if (entry.isIntersecting) near.add(owner);
    else near.delete(owner);
  }
  later();
}, { rootMargin: "50% 0px" });

function later() {
  frame ||= requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  for (const owner of near) if (behind.delete(owner)) owner.draw();
}

function touch(owner) {
  behind.add(owner);
  if (near.has(owner)) later();
}

function keep(owner) {
  owners.set(owner.node, owner);
  sight.observe(owner.node);
}

function drop(owner) {
  sight.unobserve(owner.node);
  near.delete(owner);
  behind.delete(owner);
  owner.node.remove();
}

// ---- The list ---------------------------------------------------------------------------------------------------

class Row {
  constructor(run) {
    this.run = run;
    this.name = make("span", "name", run.name || "?");
    this.state = make("span", "state");
    [this.track, this.fill] = makeBar();
    this.left = make("span");
    this.right = make("span");
    this.node = make("button", "run", make("div", "top", this.name, this.state), this.track,
      make("div", "figures", this.left, this.right));
    this.node.type = "button";
    this.node.dataset.run = run.id;
    this.node.addEventListener("click", () => choose(run.id, true));
    this.home = null;
    keep(this);
  }

  // Where it stands in the list: that goes for rows out of sight too.
  place() {
    const run = this.run;
    show(this.node, wanted(run));
    dress(this.node, `run ${run.state}`);
    set(this.node, "aria-pressed", String(run.id === chosen));
    const home = byId(run.state === "running" ? "running" : "history");
    if (home !== this.home) {
      const focused = document.activeElement === this.node;
      home.prepend(this.node);
      this.home = home;
      if (focused) this.node.focus();
    }
    this.draw();
  }

  draw() {
    const run = this.run;
    const share = part(run);
    put(this.state, run.state === "running" ? (share === null ? "running" : `${Math.floor(share * 100)} %`) : run.state);
    setBar(this.track, this.fill, run);
    put(this.left, `${progress(run)} · ${perSecond(run.rate)}`);
    const left = remaining(run);
    put(this.right, run.state !== "running" ? `${clock(run.ended)} · ${duration(elapsed(run))}`
      : left === null ? duration(elapsed(run)) : `${duration(left)} left`);
  }
}

function choose(id, byHand) {
  const before = chosen;
  chosen = id;
  pinned = pinned || byHand;
  for (const each of [before, id]) rows.get(each)?.place();
  ask();
  drawDetail();
}

// Tell the server which run's details we want. What we had of another one goes: it isn't kept up. Only one question
// is under way at a time, for two could arrive in the other order: behind it goes the one that is wanted by then.
async function ask() {
  if (question || chosen === null || page === "" || asked === chosen) return;
  const old = runs.get(asked);
  if (old) for (const name of Object.keys(old)) if (!LIGHT.has(name)) delete old[name];
  asked = chosen;
  const mine = question = new AbortController();
  try {
    await fetch("api/watch", { method: "POST", body: JSON.stringify({ page, run: asked }), signal: mine.signal });
  } catch {
    // The server is gone; the next one asks for itself.
  }
  if (question !== mine) return;
  question = null;
  ask();
}

// Every word of the box has to be in a run's name or state.
let words = [];
function wanted(run) {
  if (words.length === 0) return true;
  const text = `${run.name} ${run.state}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

byId("filter").addEventListener("input", (event) => {
  words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows.values()) show(row.node, wanted(row.run));
});

// ---- The chosen run ---------------------------------------------------------------------------------------------

function where(place) {
  if (!place.file) return "–";
  return place.line === null ? place.file : `${place.file}:${place.line}`;
}

// One worker's line.
class Lane {
  constructor(worker) {
    this.number = make("span");
    this.chip = make("span");
    this.pid = make("span", "right pid");
    this.tasks = make("span", "right");
    this.parts = KINDS.map((kind) => make("i", kind));
    this.node = make("div", "lane", this.number, this.chip, make("div", "share", ...this.parts), this.tasks, this.pid);
    this.worker = worker;
    this.draw();
    keep(this);
  }

  draw() {
    const worker = this.worker;
    put(this.number, `${worker.worker}`);
    dress(this.chip, `chip ${worker.state}`);
    put(this.chip, WORDS[worker.state]);
    put(this.tasks, `${count(worker.tasks)}${worker.restarts ? ` ↻${worker.restarts}` : ""}`);
    const death = worker.died ? `, the last death by ${worker.died}` : "";
    set(this.tasks, "title", `${worker.tasks} tasks, ${worker.restarts} restarts${death}`);
    put(this.pid, worker.pid ? `pid ${worker.pid}` : "");
    const all = KINDS.reduce((sum, kind) => sum + worker[kind], 0) || 1;
    KINDS.forEach((kind, n) => widen(this.parts[n], worker[kind] / all));
  }
}

class Detail {
  constructor(run) {
    this.run = run;
    near.add(this);
    this.title = make("h3", "", run.name || "?");
    [this.track, this.fill] = makeBar();
    this.figures = {};
    const figures = make("div", "big");
    for (const name of ["done", "rate", "elapsed", "remaining", "state"]) {
      this.figures[name] = make("div");
      figures.append(make("div", "", make("span", "", name), this.figures[name]));
    }
    this.trouble = make("div", "trouble");
    this.trouble.hidden = true;
    this.error = make("p");
    this.traceback = make("pre");
    this.traceback.tabIndex = 0;
    this.trouble.append(this.error, this.traceback);
    this.lanes = make("div", "lanes");
    const headings = ["", "now", "time so far", "tasks", "process"].map((name, n) => make("span", ["", "middle", "", "right", "right pid"][n], name));
    this.lanes.append(make("div", "headings", ...headings));
    this.ofWorkers = [];
    this.workersTitle = make("h2");
    this.key = make("p", "key");
    for (const kind of KINDS) this.key.append(make("span", "", make("i", kind), WORDS[kind]));
    this.totals = make("div", "share");
    this.totals.id = "shares";
    this.totals.setAttribute("role", "img");
    this.shares = KINDS.map((kind) => make("i", kind));
    this.totals.append(...this.shares);
    this.chart = make("div");
    this.chart.id = "throughput";
    this.slowTitle = make("h2", "", "Slowest tasks");
    this.slow = make("table");
    this.end = make("dd");
    const about = make("dl");
    const entry = (name, value) => about.append(make("dt", "", name), value instanceof Node ? value : make("dd", "", value));
    entry("function", where(run.function));
    entry("called from", `${where(run.caller)}${run.caller.function ? ` in ${run.caller.function}` : ""}`);
    if (run.caller.text) entry("", make("dd", "signature", run.caller.text));
    entry("start", clock(run.begun));
    entry("end", this.end);
    entry("user, pid", `${run.user}, ${run.pid}`);
    entry("program", run.program || "–");
    entry("pool", `${run.call}, ${run.n_jobs} workers by ${run.start_method}`);
    const node = byId("detail");
    node.replaceChildren(this.title, make("p", "signature", (run.name || "?").split(".").pop() + run.function.signature),
      ...(run.function.doc ? [make("p", "doc", run.function.doc)] : []), this.track, figures, this.trouble,
      make("h2", "", "Throughput"), this.chart, this.workersTitle, this.totals, this.key, this.lanes,
      this.slowTitle, this.slow, make("h2", "", "About"), about);
    node.hidden = false;
  }

  // Another one takes its place.
  close() {
    near.delete(this);
    behind.delete(this);
    this.ofWorkers.forEach(drop);
  }

  draw() {
    const run = this.run;
    if (!run.function) return; // another one is asked for
    dress(byId("detail"), run.state);
    setBar(this.track, this.fill, run);
    put(this.figures.done, progress(run));
    put(this.figures.rate, perSecond(run.rate));
    put(this.figures.elapsed, duration(elapsed(run)));
    put(this.figures.remaining, duration(remaining(run)));
    put(this.figures.state, run.state);
    put(this.end, clock(run.ended));
    show(this.trouble, Boolean(run.error || run.traceback));
    put(this.error, run.error);
    put(this.traceback, run.traceback);
    show(this.traceback, Boolean(run.traceback));
    if (this.workers !== run.workers) {
      this.workers = run.workers;
      this.drawLanes(run.workers);
    }
    this.drawSlow(run.slowest);
    if (this.points !== run.points) {
      this.points = run.points;
      drawChart(this.chart, run.points);
    }
  }

  drawLanes(workers) {
    const restarts = workers.reduce((sum, each) => sum + each.restarts, 0);
    const deaths = [...new Set(workers.map((each) => each.died).filter(Boolean))].join(", ");
    put(this.workersTitle, `Workers${restarts ? ` · ${restarts} restarted` : ""}${deaths ? ` · died by ${deaths}` : ""}`);
    while (this.ofWorkers.length > workers.length) drop(this.ofWorkers.pop());
    while (this.ofWorkers.length < workers.length) {
      const lane = new Lane(workers[this.ofWorkers.length]);
      this.ofWorkers.push(lane);
      this.lanes.append(lane.node);
    }
    workers.forEach((worker, at) => {
      this.ofWorkers[at].worker = worker;
      touch(this.ofWorkers[at]);
    });
    const sums = KINDS.map((kind) => workers.reduce((sum, each) => sum + each[kind], 0));
    const all = sums.reduce((a, b) => a + b, 0) || 1;
    sums.forEach((sum, n) => widen(this.shares[n], sum / all));
    const label = KINDS.map((kind, n) => `${WORDS[kind]} ${Math.round((sums[n] / all) * 100)} %`).join(", ");
    set(this.totals, "aria-label", label);
    KINDS.forEach((kind, n) => put(this.key.children[n].lastChild, `${WORDS[kind]} ${Math.round((sums[n] / all) * 100)} %`));
  }

  drawSlow(slowest) {
    show(this.slowTitle, slowest.length > 0);
    const now = JSON.stringify(slowest);
    if (now === this.slowest) return;
    this.slowest = now;
    this.slow.replaceChildren(...slowest.map(([seconds, text]) =>
      make("tr", "", make("td", "", duration(seconds)), make("td", "", text))));
  }
}

// Tasks a second between the points that the server keeps, which are no more than a few hundred.
function drawChart(home, points) {
  const W = 600, H = 150, SVG = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "chart");
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const add = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    svg.append(node);
    return node;
  };
  const speeds = [];
  for (let n = 1; n < points.length; n += 1) {
    const passed = points[n][0] - points[n - 1][0];
    if (passed > 0) speeds.push([points[n - 1][0], points[n][0], (points[n][1] - points[n - 1][1]) / passed]);
  }
  const end = points[points.length - 1][0] || 1;
  const peak = Math.max(...speeds.map((s) => s[2]), 0);
  const most = niceAbove(peak);
  const x = (time) => (time / end) * W;
  const y = (speed) => (1 - speed / most) * (H - 2) + 1;
  for (const share of [0, 0.5, 1]) add("line", { class: "grid", x1: 0, x2: W, y1: y(share * most), y2: y(share * most) });
  const line = speeds.map(([from, to, speed]) => `L${x(from).toFixed(1)} ${y(speed).toFixed(1)}L${x(to).toFixed(1)} ${y(speed).toFixed(1)}`);
  if (line.length) {
    const path = `M${line.join("").slice(1)}`;
    add("path", { class: "area", d: `${path}L${W} ${y(0)}L0 ${y(0)}Z` });
    add("path", { class: "curve", d: path });
  }
  const label = speeds.length ? `peak ${perSecond(peak)}` : "no measurement yet";
  svg.setAttribute("aria-label", `${label} within ${duration(end)}`);
  const middle = make("span", "", label);
  const cursor = add("line", { class: "cursor", y1: 0, y2: H, visibility: "hidden" });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const time = ((event.clientX - box.left) / box.width) * end;
    const here = speeds.find(([from, to]) => from <= time && time <= to);
    if (!here) return;
    cursor.setAttribute("x1", x(time));
    cursor.setAttribute("x2", x(time));
    cursor.setAttribute("visibility", "visible");
    put(middle, `${perSecond(here[2])} from ${duration(here[0])} to ${duration(here[1])}`);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    put(middle, label);
  });
  const scale = make("div", "scale", ...[1, 0.5, 0].map((share) => make("span", "", speeds.length ? perSecond(most * share) : "")));
  const below = make("div", "figures", make("span", "", "0"), middle, make("span", "", duration(end)));
  home.replaceChildren(make("div", "plot", scale, svg, below));
}

// A round number that is not much more: what a scale ends at.
function niceAbove(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function drawDetail() {
  const run = runs.get(chosen);
  document.querySelector("main").classList.toggle("alone", !run);
  if (!run) {
    byId("detail").hidden = true;
    return;
  }
  if (!run.function) return; // asked for, and on its way
  if (!detail || detail.run !== run) {
    detail?.close();
    detail = new Detail(run);
  }
  touch(detail);
}

// ---- News -------------------------------------------------------------------------------------------------------

function summarise() {
  let running = 0, failed = 0;
  for (const run of runs.values()) {
    running += run.state === "running";
    failed += run.state === "failed" || run.state === "lost";
  }
  const summary = byId("summary");
  dress(summary, lost ? "lost" : "");
  put(summary, lost ? "The dashboard is gone; trying to reach it again …"
    : `${running} running · ${runs.size - running} ended${failed ? ` · ${failed} failed` : ""}`);
  const title = running ? `(${running}) tercio` : "tercio";
  if (document.title !== title) document.title = title;
  show(byId("empty"), runs.size === 0);
  show(byId("filter"), runs.size >= 8);
  show(byId("history-title"), runs.size > running);
}

function forget(id) {
  runs.delete(id);
  if (rows.has(id)) drop(rows.get(id));
  rows.delete(id);
  if (asked === id) asked = null;
  if (chosen === id) { chosen = null; pinned = false; }
  if (detail?.run.id === id) { detail.close(); detail = null; }
}

function take(news) {
  ahead = news.time - Date.now() / 1000;
  if (news.page) {
    page = news.page;
    asked = null;
    question?.abort();
    question = null;
  }
  news.gone.forEach(forget);
  let newest = null;
  for (const change of news.runs.sort((a, b) => a.id - b.id)) {
    let run = runs.get(change.id);
    if (!run) {
      if (change.state === undefined) continue; // a change of what we were never told
      run = {};
      runs.set(change.id, run);
      newest = change.id;
    }
    // Details of another run than the one that we asked for last were on their way, and are old when they are wanted.
    for (const name of Object.keys(change)) if (LIGHT.has(name) || run.id === asked) run[name] = change[name];
    if (!rows.has(run.id)) rows.set(run.id, new Row(run));
    const row = rows.get(run.id);
    if (change.state === undefined) touch(row);
    else row.place(); // it begins or ends, which is seldom
  }
  // Until somebody picks one, the newest is shown.
  if (newest !== null && !pinned) choose(newest, false);
  else if (news.runs.some((change) => change.id === chosen)) drawDetail();
  ask();
  summarise();
}

function listen() {
  const source = new EventSource("api/events");
  source.onopen = () => {
    // The server may be another one than before, with other runs: it tells everything anew.
    [...runs.keys()].forEach((id) => { if (lost) forget(id); });
    page = "";
    lost = false;
    drawDetail();
    summarise();
  };
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => { lost = true; summarise(); };
}

// Times that pass by themselves; nothing else is drawn without news.
setInterval(() => {
  if (document.hidden) return;
  for (const owner of near) if (owner.run?.state === "running") touch(owner);
}, 1000);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  if (event.key === "/" && document.activeElement !== byId("filter")) {
    byId("filter").focus();
    event.preventDefault();
  }
  const all = [...document.querySelectorAll(".run:not([hidden])")];
  if (!step || all.length === 0 || ["PRE", "INPUT"].includes(document.activeElement?.tagName)) return;
  const at = all.findIndex((node) => Number(node.dataset.run) === chosen);
  const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
  choose(Number(next.dataset.run), true);
  next.focus();
  event.preventDefault();
});

byId("shell-hint").textContent = `export TERCIO_DASHBOARD=${location.host}\npython your_program.py`;
byId("python-hint").textContent = `from tercio.dashboard import connect_to_dashboard\n\nconnect_to_dashboard(${location.port || 80})\n`
  + "pool.map(function, tasks, progress_bar=True)";
listen();
