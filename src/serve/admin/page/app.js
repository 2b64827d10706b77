// The page of cowherd. Texts of machines only ever become text: nothing here makes markup of them.
"use strict";

const STAGES = [
  ["discover", "DHCP DISCOVER"], ["offer", "DHCP OFFER"], ["ack", "DHCP ACK"],
  ["loader", "boot loader"], ["config", "boot menu"], ["kernel", "kernel"],
  ["initramfs", "initramfs"], ["dhcp-again", "DHCP of initramfs"], ["connect", "NBD handshake"],
  ["first-read", "first read"], ["mounted", "root mounted"],
];
const TITLE = new Map(STAGES);
const PLACE = new Map(STAGES.map(([name], place) => [name, place]));
const STATES = ["failed", "stuck", "slow", "booting", "up", "down", "idle"];
const HELP = new Set(["failed", "stuck", "slow"]);
const SVG = "http://www.w3.org/2000/svg";
const MINUTE = 60;

const byId = (id) => document.getElementById(id);
/** Machines by id: what is known, its row, its last minute. */
const machines = new Map();
/** The server's clock less ours, in milliseconds. */
let skew = 0;
let token = sessionStorage.getItem("token");
let order = [];
let shown = null;
let opener = null;

function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Changes a text only where it is another one: most rows stay as they are. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

function seconds(millis) {
  return `${(millis / 1000).toFixed(millis < 10000 ? 2 : 1)} s`;
}

function age(at) {
  if (at === null || at === undefined) return "";
  const since = Math.max(0, Math.floor((Date.now() + skew - at) / 1000));
  if (since < 60) return `${since} s`;
  if (since < 3600) return `${Math.floor(since / 60)} min`;
  if (since < 86400) return `${Math.floor(since / 3600)} h`;
  return `${Math.floor(since / 86400)} d`;
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    askForToken();
    throw new Error("the token is wrong or missing");
  }
  return response;
}

async function value(path, options) {
  const response = await ask(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `error ${response.status}`);
  return answer;
}

/* Machines */

/** The stage that was begun last and is not done, if there is one. */
function begun(client) {
  const newest = client.boots[0]?.stages.at(-1)?.stage;
  const reached = client.stage === null ? -1 : PLACE.get(client.stage);
  return newest !== undefined && PLACE.get(newest) > reached ? newest : null;
}

function steps(client) {
  const chart = draw("svg", { width: 112, height: 12, class: "steps", "aria-hidden": "true" });
  const reached = client.stage === null ? -1 : PLACE.get(client.stage);
  const next = begun(client) === null ? reached + 1 : PLACE.get(begun(client));
  const isOver = client.state === "down" || client.state === "idle";
  STAGES.forEach((_, place) => {
    let look = place <= reached ? (client.state === "up" ? "up" : "done") : "todo";
    if (place === next && !isOver && client.state !== "up") look = "now";
    if (isOver) look = "todo";
    chart.append(draw("rect", { x: place * 10, y: 2, width: 8, height: 8, rx: 2, class: look }));
  });
  return chart;
}

function newRow(id) {
  const row = make("tr");
  const head = make("th");
  head.scope = "row";
  const open = make("button", id, "link");
  open.type = "button";
  open.addEventListener("click", () => openDetail(id, open));
  head.append(open);
  const state = make("span", "", "state");
  const cells = Array.from({ length: 8 }, () => make("td"));
  cells[0].append(state);
  const title = make("span", "");
  cells[1].append(title);
  for (const place of [4, 5, 7]) cells[place].className = "number";
  const line = draw("polyline", { points: "" });
  const spark = draw("svg", { width: 120, height: 22, class: "spark", "aria-hidden": "true" });
  spark.append(line);
  cells[6].append(spark);
  row.append(head, ...cells);
  return { row, state, title, cells, line, stepsOf: "" };
}

function update(client) {
  let machine = machines.get(client.id);
  if (!machine) {
    machine = { view: newRow(client.id), minute: [], busy: false };
    machines.set(client.id, machine);
    order = [];
  }
  if (!machine.client || HELP.has(machine.client.state) !== HELP.has(client.state)) order = [];
  machine.client = client;
  const { view } = machine;
  say(view.state, client.state);
  view.state.className = `state state-${client.state}`;
  const now = begun(client);
  const look = `${client.state} ${client.stage} ${now}`;
  if (view.stepsOf !== look) {
    view.stepsOf = look;
    view.cells[1].replaceChildren(steps(client), view.title);
  }
  const done = client.stage === null ? "" : TITLE.get(client.stage);
  say(view.title, now === null ? done : `${TITLE.get(now)} …`);
  say(view.cells[3], client.export ?? "");
  const traffic = client.traffic;
  say(view.cells[4], traffic?.reads_per_second ? size(traffic.reads_per_second) : "");
  say(view.cells[5], traffic?.writes_per_second ? size(traffic.writes_per_second) : "");
  say(view.cells[7], size(traffic?.overlay_bytes));
}

function compare(a, b) {
  const need = (client) => (HELP.has(client.state) ? 0 : 1);
  return need(a) - need(b) || a.id.localeCompare(b.id, "en", { numeric: true });
}

function arrange() {
  if (order.length === machines.size && order.length > 0) return;
  const all = [...machines.values()].sort((a, b) => compare(a.client, b.client));
  order = all.map((machine) => machine.client.id);
  const rows = byId("rows");
  // Only rows that are not where they belong are moved, so that the focus stays where it is.
  all.forEach((machine, place) => {
    const there = rows.children[place];
    if (there !== machine.view.row) rows.insertBefore(machine.view.row, there ?? null);
  });
  byId("empty").hidden = machines.size > 0;
}

function filter() {
  const text = byId("find").value.trim().toLowerCase();
  const state = byId("state").value;
  for (const { client, view } of machines.values()) {
    const words = [client.id, client.mac, client.address, client.hostname, client.export];
    const has = !text || words.some((word) => word && word.toLowerCase().includes(text));
    view.row.hidden = !(has && (!state || client.state === state));
  }
}

function summarize() {
  const counts = new Map(STATES.map((state) => [state, 0]));
  const wrong = [];
  for (const { client } of machines.values()) {
    counts.set(client.state, counts.get(client.state) + 1);
    if (client.problem) wrong.push(client);
  }
  const words = STATES.filter((state) => counts.get(state) > 0);
  const all = machines.size === 1 ? "1 machine" : `${machines.size} machines`;
  const rest = words.map((state) => `${counts.get(state)} ${state}`).join(", ");
  say(byId("summary"), rest ? `${all}: ${rest}` : all);
  byId("trouble").hidden = wrong.length === 0;
  const list = byId("problems");
  wrong.sort(compare);
  wrong.forEach((client, place) => {
    let item = list.children[place];
    if (!item) { item = make("li"); list.append(item); }
    say(item, `${client.id}: ${client.problem}`);
  });
  while (list.children.length > wrong.length) list.lastChild.remove();
}

/** Once a second: ages, and the last minute of those who had any traffic in it. */
function tick() {
  for (const machine of machines.values()) {
    const { client, view, minute } = machine;
    say(view.cells[2], age(client.since));
    const traffic = client.traffic;
    const rate = (traffic?.reads_per_second ?? 0) + (traffic?.writes_per_second ?? 0);
    if (rate === 0 && !machine.busy) continue;
    minute.push(rate);
    if (minute.length > MINUTE) minute.shift();
    const most = Math.max(...minute);
    machine.busy = most > 0;
    const height = (rate) => (most === 0 ? 20 : 20 - (18 * rate) / most);
    const points = minute.map((rate, place) => `${place * 2},${height(rate).toFixed(1)}`);
    view.line.setAttribute("points", machine.busy ? points.join(" ") : "");
    if (!machine.busy) minute.length = 0;
  }
}

function take(name, data) {
  if (name === "clients") {
    skew = data.now - Date.now();
    data.clients.forEach(update);
    if (shown && data.clients.some((client) => client.id === shown)) showDetail();
  } else if (name === "gone") {
    for (const id of data) {
      machines.get(id)?.view.row.remove();
      machines.delete(id);
      order = [];
    }
  }
  arrange();
  filter();
  summarize();
}

/* The stream. fetch, and not EventSource, which has no way to send a token. */

async function listen() {
  const response = await ask("/api/v1/events");
  if (!response.ok) throw new Error(`error ${response.status}`);
  // What was forgotten while there was no connection is not there any more.
  for (const { view } of machines.values()) view.row.remove();
  machines.clear();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value: text, done } = await reader.read();
    if (done) return;
    const events = (rest + text).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const field = (name) => event.split("\n").find((line) => line.startsWith(`${name}: `));
      const [name, data] = [field("event"), field("data")];
      if (name && data) take(name.slice(7), JSON.parse(data.slice(6)));
    }
  }
}

async function stayConnected() {
  for (;;) {
    try {
      await listen();
    } catch (error) {
      if (byId("login").open) return;
      console.debug(error);
    }
    say(byId("summary"), "the server does not answer; trying again");
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

/* One machine */

function openDetail(id, button) {
  shown = id;
  opener = button;
  byId("boots").replaceChildren();
  showDetail();
  byId("detail").showModal();
}

async function showDetail() {
  const id = shown;
  let client;
  try {
    client = await value(`/api/v1/clients/${encodeURIComponent(id)}`);
  } catch (error) {
    say(byId("detail-problem"), error.message);
    return;
  }
  if (shown !== id) return;
  say(byId("detail-title"), `${client.id}: ${client.state}`);
  say(byId("detail-problem"), client.problem ?? "");
  const facts = [
    ["MAC address", client.mac], ["address", client.address], ["calls itself", client.hostname],
    ["vendor class", client.vendor], ["architecture", client.architecture],
    ["export", client.export], ["connections", String(client.connections)],
    ["has read", size(client.traffic?.bytes_read)],
    ["has written", size(client.traffic?.bytes_written)],
    ["overlay holds", size(client.traffic?.overlay_bytes)],
  ];
  const list = byId("facts");
  list.replaceChildren();
  for (const [name, text] of facts) {
    if (text) list.append(make("dt", name), make("dd", text));
  }
  byId("latencies").replaceChildren(...latencies(client.latencies));
  byId("boots").replaceChildren(...client.boots.map(timeline));
}

function latencies(of) {
  const kinds = Object.entries(of);
  if (kinds.length === 0) return [];
  const table = tableOf("Latency of requests", ["Request", "Count", "Median", "99 %", "Longest"]);
  for (const [kind, one] of kinds) {
    const row = make("tr");
    const head = make("th", kind);
    head.scope = "row";
    const micros = [one.median, one.p99, one.longest].map((of) => `${of} µs`);
    row.append(head, ...[String(one.count), ...micros].map((text) => make("td", text, "number")));
    table.body.append(row);
  }
  return [table.table];
}

function tableOf(caption, heads) {
  const table = make("table");
  const head = make("tr");
  for (const text of heads) {
    const cell = make("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  const [top, body] = [make("thead"), make("tbody")];
  top.append(head);
  table.append(make("caption", caption), top, body);
  return { table, body };
}

/** One boot: a chart for those who see, a table for all. */
function timeline(boot) {
  const part = make("section", undefined, "boot");
  const took = boot.took === null ? "" : `, up after ${seconds(boot.took)}`;
  const title = `Boot of ${new Date(boot.began).toLocaleString()}: ${boot.state}${took}`;
  part.append(make("h3", title));
  if (boot.problem) part.append(make("p", boot.problem));
  part.append(chart(boot));
  const details = make("details");
  details.append(make("summary", "As a table"));
  const table = tableOf(title, ["Stage", "At", "Took", "Usually", "Bytes", "Notes"]);
  for (const stage of boot.stages) {
    const notes = [
      stage.detail, stage.slow ? "slow" : "", stage.failure ?? "",
      stage.tries > 1 ? `tried ${stage.tries} times` : "",
    ];
    const texts = [
      stage.ended === null ? "not done" : seconds(stage.ended),
      stage.took === null ? "" : seconds(stage.took),
      stage.usual === null ? "" : seconds(stage.usual),
      stage.bytes ? size(stage.bytes) : "",
      notes.filter((note) => note).join(", "),
    ];
    const row = make("tr");
    const head = make("th", TITLE.get(stage.stage));
    head.scope = "row";
    row.append(head, ...texts.map((text) => make("td", text)));
    table.body.append(row);
  }
  details.append(table.table);
  part.append(details);
  return part;
}

function chart(boot) {
  const [left, width, line] = [150, 560, 20];
  let end = Math.max(1, ...boot.stages.map((stage) => stage.ended ?? stage.began));
  // What is waited for has lasted until now.
  const waits = ["booting", "slow", "stuck"].includes(boot.state);
  if (waits && boot.stages.at(-1)?.ended === null) {
    end = Math.max(end, Date.now() + skew - boot.began);
  }
  const height = boot.stages.length * line + 24;
  const box = { width: left + width + 130, height, class: "chart", role: "img" };
  const picture = draw("svg", box);
  picture.append(draw("title", {}, "How long each stage took; the table below says the same"));
  const at = (millis) => left + (width * millis) / end;
  let before = 0;
  boot.stages.forEach((stage, place) => {
    const y = place * line;
    const until = stage.ended ?? end;
    const look = stage.failure ? "failed" : stage.slow ? "slow" : "bar";
    const length = Math.max(2, at(until) - at(Math.min(before, until)));
    picture.append(
      draw("text", { x: left - 8, y: y + 14, "text-anchor": "end" }, TITLE.get(stage.stage)),
      draw("rect", { x: at(Math.min(before, until)), y: y + 4, width: length, height: 12, class: look }),
    );
    const words = [stage.took === null ? "" : `+${seconds(stage.took)}`];
    if (stage.slow) words.push("slow");
    if (stage.failure) words.push("failed");
    else if (stage.ended === null) words.push("not done");
    picture.append(draw("text", { x: at(until) + 6, y: y + 14 }, words.join(" ")));
    before = stage.ended ?? before;
  });
  const y = boot.stages.length * line + 4;
  picture.append(
    draw("line", { x1: left, y1: y, x2: left + width, y2: y, class: "axis" }),
    draw("text", { x: left, y: y + 15 }, "0 s"),
    draw("text", { x: left + width, y: y + 15, "text-anchor": "end" }, seconds(end)),
  );
  return picture;
}

/* Images and overlays */

async function showImages() {
  const rows = byId("image-rows");
  const images = await value("/api/v1/images");
  rows.replaceChildren();
  for (const image of images) {
    for (const one of image.generations) {
      const row = make("tr");
      const head = make("th", image.name);
      head.scope = "row";
      const number = `${one.generation}${one.generation === image.current ? " (current)" : ""}`;
      const many = one.clients.length;
      const who = many > 20 ? `${many} machines` : one.clients.join(", ") || "none";
      row.append(head, make("td", number), make("td", size(one.bytes), "number"), make("td", who));
      rows.append(row);
    }
  }
}

async function showOverlays() {
  const rows = byId("overlay-rows");
  let overlays = [];
  try {
    overlays = await value("/api/v1/overlays");
    say(byId("overlays-said"), overlays.length === 0 ? "There are no overlays." : "");
  } catch (error) {
    say(byId("overlays-said"), error.message);
  }
  rows.replaceChildren();
  for (const one of overlays) {
    const row = make("tr");
    const head = make("th", one.overlay);
    head.scope = "row";
    const users = one.in_use ? one.in_use.join(", ") || "a client" : "nobody";
    const reset = make("button", "Reset");
    reset.type = "button";
    reset.setAttribute("aria-label", `Reset ${one.overlay}`);
    reset.disabled = Boolean(one.in_use);
    reset.addEventListener("click", () => confirm({
      title: `Reset ${one.overlay}?`,
      text: "All that its machine has written is lost for good. It begins with the image again.",
      word: "Reset",
      path: `/api/v1/overlays/${encodeURIComponent(one.overlay)}/reset`,
      opener: reset,
      then: showOverlays,
    }));
    const action = make("td");
    action.append(reset);
    row.append(
      head, make("td", one.problem ?? one.mode ?? ""),
      make("td", size(one.space_bytes), "number"), make("td", users), action,
    );
    rows.append(row);
  }
}

/* Confirmations */

let wish = null;

function confirm(next) {
  wish = next;
  say(byId("confirm-title"), next.title);
  say(byId("confirm-text"), next.text);
  say(byId("confirm-said"), "");
  say(byId("confirm-yes"), next.word);
  byId("confirm").showModal();
}

async function doIt() {
  const next = wish;
  try {
    await value(next.path, { method: "POST", headers: { "X-Cowherd-Intent": "yes" } });
  } catch (error) {
    say(byId("confirm-said"), error.message);
    return;
  }
  byId("confirm").close();
  await next.then();
}

/* The rest */

function askForToken() {
  if (!byId("login").open) byId("login").showModal();
}

const REFRESH = { images: showImages, overlays: showOverlays };
let view = "machines";

function show(next) {
  view = next;
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  for (const name of ["machines", "images", "overlays"]) byId(name).hidden = name !== view;
  refresh();
}

function refresh() {
  REFRESH[view]?.().catch((error) => console.debug(error));
}

function start() {
  for (const state of STATES) {
    const option = make("option", state);
    option.value = state;
    byId("state").append(option);
  }
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => show(button.dataset.view));
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", filter);
  byId("state").addEventListener("input", filter);
  byId("detail-close").addEventListener("click", () => byId("detail").close());
  byId("detail").addEventListener("close", () => { shown = null; opener?.focus(); });
  byId("confirm-no").addEventListener("click", () => byId("confirm").close());
  byId("confirm-yes").addEventListener("click", doIt);
  byId("confirm").addEventListener("close", () => wish?.opener?.focus());
  byId("forget").addEventListener("click", () => {
    const id = shown;
    confirm({
      title: `Forget ${id}?`,
      text: "Its earlier boots are forgotten. Its overlay and its address stay as they are.",
      word: "Forget",
      path: `/api/v1/clients/${encodeURIComponent(id)}/forget`,
      opener: byId("forget"),
      then: () => byId("detail").close(),
    });
  });
  byId("forget-lease").addEventListener("click", () => {
    const id = shown;
    confirm({
      title: `Forget the lease of ${id}?`,
      text: "Its address may be given to another machine at once. Only for machines that are off.",
      word: "Forget the lease",
      path: `/api/v1/clients/${encodeURIComponent(id)}/forget-lease`,
      opener: byId("forget-lease"),
      then: showDetail,
    });
  });
  byId("login-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value;
    sessionStorage.setItem("token", token);
    byId("token").value = "";
    byId("login").close();
    stayConnected();
    refresh();
  });
  setInterval(tick, 1000);
  setInterval(() => { if (view === "images") refresh(); }, 5000);
  stayConnected();
}

start();
