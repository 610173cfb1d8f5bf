/* The routing page: asks POST v1/routing, draws the answer, and shows the server's state from metrics. All that comes from a model or a file
 * is put into the page as text, never as HTML. */
"use strict";

const $ = (id) => document.getElementById(id);
const CODES = { "-": 0, 0: 1, 1: 2 }; /* skip, linear path, attend */
const WORDS = ["skips", "linear path", "attends"];
const GUTTER = 64; /* px left of the map, for layer numbers */
const LINK_MAX = 6000; /* characters of a link */

const state = {
  shown: null, /* what is drawn: an answer as read() leaves it */
  other: null, /* a saved answer to compare with */
  token: 0,
  layer: 0,
  range: { least: 0, most: 0 }, /* layers in which a token attends */
  cells: null, /* the map, a pixel a cell, and what it was painted of */
  painted: [],
};

/* ---- the document -------------------------------------------------------------------------------------------- */

function element(tag, text, className) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

function say(text, bad) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", Boolean(bad));
}

function tableHead(names) {
  const head = element("thead"), row = element("tr");
  for (const name of names) {
    const cell = element("th", name);
    cell.scope = "col";
    row.append(cell);
  }
  head.append(row);
  return head;
}

/* cells: texts or elements; the first is the row's header. */
function tableRow(cells) {
  const row = element("tr");
  cells.forEach((content, i) => {
    const cell = element(i ? "td" : "th");
    if (!i) cell.scope = "row";
    cell.append(content);
    row.append(cell);
  });
  return row;
}

function fillTable(table, names, rows) {
  const body = element("tbody");
  for (const cells of rows) body.append(tableRow(cells));
  table.replaceChildren(tableHead(names), body);
}

function bar(share) {
  const outer = element("span", undefined, "bar"), inner = element("i");
  inner.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  outer.append(inner);
  return outer;
}

function figures(list, rows) {
  list.replaceChildren(
    ...rows.map(([name, value, note]) => {
      const box = element("div"), dd = element("dd", value);
      if (note) dd.append(element("small", note));
      box.append(element("dt", name), dd);
      return box;
    }),
  );
}

function extremes(values) {
  let least = Infinity, most = -Infinity;
  for (const v of values) {
    if (v < least) least = v;
    if (v > most) most = v;
  }
  return { least, most };
}

const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)} %`;
const count = (x) => Math.round(x).toLocaleString("en-US");

function size(x, unit) {
  const steps = ["", "k", "M", "G", "T", "P"];
  let i = 0;
  while (Math.abs(x) >= 1000 && i + 1 < steps.length) {
    x /= 1000;
    i++;
  }
  return `${x.toFixed(i ? Math.max(0, 2 - Math.floor(Math.log10(Math.max(1, Math.abs(x))))) : 0)} ${steps[i]}${unit}`; /* three digits */
}

function probability(p) {
  if (p === null || Number.isNaN(p)) return "—";
  return p > 0 && p < 0.0005 ? p.toExponential(1) : p.toFixed(3);
}

/* A token as it is shown: what has no shape of its own gets one. */
const visible = (text) => text.replace(/^token_id:(\d+)$/, "$1 ").replace(/\n/g, "⏎\n").replace(/\t/g, "⇥\t");
const quoted = (text) => `“${text.replace(/\n/g, "⏎").replace(/\t/g, "⇥")}”`;

/* ---- answers -------------------------------------------------------------------------------------------------- */

function check(ok, what) {
  if (!ok) throw new Error(what);
}

function readNumbers(list, n, name) {
  if (list === undefined) return null;
  check(Array.isArray(list) && list.length === n, `${name} is not a list of ${n}`);
  return Float32Array.from(list, (v) => (typeof v === "number" ? v : NaN));
}

function readLayer(layer, n, l) {
  check(layer && typeof layer.routing === "string" && layer.routing.length === n, `layer ${l} has no routing of ${n} tokens`);
  check(typeof layer.kv === "string" && layer.kv.length === n, `layer ${l} has no kv of ${n} tokens`);
  const codes = new Uint8Array(n), by = [0, 0, 0];
  for (let i = 0; i < n; i++) by[(codes[i] = CODES[layer.routing[i]] ?? 0)]++;
  return {
    kind: String(layer.kind),
    routed: layer.router !== "none",
    nested: layer.skip_router !== "none",
    forced: layer.forced_dense === true,
    router: String(layer.router),
    decide: String(layer.decide),
    codes,
    by, /* how many tokens have each code */
    kv: layer.kv.split("1").length - 1,
    p: readNumbers(layer.p, n, `p of layer ${l}`),
    s0: readNumbers(layer.s0, n, `s0 of layer ${l}`),
  };
}

/* An answer of POST /v1/routing, checked, as arrays. */
function read(answer) {
  check(answer && answer.object === "routing" && Array.isArray(answer.tokens), "this is no answer of POST /v1/routing");
  const n = answer.tokens.length;
  check(n > 0 && Array.isArray(answer.token_strings) && answer.token_strings.length === n, "tokens and token_strings differ in length");
  check(Array.isArray(answer.layers) && answer.layers.length > 0, "there are no layers");
  const layers = answer.layers.map((layer, l) => readLayer(layer, n, l));
  const attended = new Uint16Array(n);
  for (const { codes } of layers) for (let i = 0; i < n; i++) attended[i] += codes[i] === 2;
  return {
    n,
    layers,
    attended,
    ids: answer.tokens,
    texts: answer.token_strings.map(String),
    logprobs: readNumbers(answer.token_logprobs, n, "token_logprobs"),
    next: Array.isArray(answer.next) ? answer.next : [],
    cost: answer.usage?.cost,
    rowBytes: Number(answer.kv_row_bytes) || 0,
    raw: answer,
    server: null,
    text: null,
  };
}

/* "3 of 48": 1 is the largest p among the tokens that the layer's router was asked about. */
function rankText(layer, i) {
  if (!layer.p || Number.isNaN(layer.p[i])) return "—";
  let rank = 1, of = 0;
  for (const p of layer.p) {
    if (p > layer.p[i]) rank++;
    if (p === p) of++; /* NaN: not asked */
  }
  return `${rank} of ${of}`;
}

/* The saved answer, where it is of the same tokens and as many layers. */
function partner() {
  const a = state.shown, b = state.other;
  const same = a && b && a.n === b.n && a.layers.length === b.layers.length && a.ids.every((id, i) => id === b.ids[i]);
  return same ? b : null;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

function headers() {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, body) {
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const response = await fetch(path, { ...options, headers: headers(), cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw Object.assign(new Error(answer?.error?.message ?? `the server answered ${response.status}`), { status: response.status });
}

function readInput() {
  const text = $("text").value;
  if ($("kind").value === "text") return text;
  const ids = text.split(/[\s,[\]]+/).filter(Boolean).map(Number);
  check(ids.every((id) => Number.isInteger(id) && id >= 0), "token ids are whole numbers, with blanks or commas between them");
  return ids;
}

async function ask() {
  $("run").disabled = true;
  say("Asking …");
  try {
    const text = readInput();
    const response = await call("v1/routing", { text, add_bos: $("bos").checked, top_logprobs: 10 });
    const body = await response.text();
    const begin = performance.now();
    const answer = read(JSON.parse(body));
    answer.text = text;
    show(answer);
    requestAnimationFrame(() => setTimeout(() => performance.measure("draw", { start: begin, end: performance.now() })));
    say(`${count(answer.n)} tokens, ${answer.layers.length} layers.`);
    answer.server = await call("version").then((r) => r.json()).catch(() => null);
    describe(answer.server);
  } catch (error) {
    say(error.message, true);
    if (error.status === 401) $("key").focus();
  } finally {
    $("run").disabled = false;
  }
}

function describe(server) {
  if (!server) return;
  const forced = server.forced_dense_layers?.length ? `, layers ${server.forced_dense_layers.join(" ")} forced dense` : "";
  const rope = server.rope && server.rope.type !== "default" ? `, RoPE ${server.rope.type} × ${server.rope.factor}` : "";
  $("model").textContent = `${server.model}: ${server.family}, ${server.layers} layers, ${server.dtype} on ${server.device}${rope}${forced}.`;
}

/* ---- drawing --------------------------------------------------------------------------------------------------- */

function show(answer) {
  state.shown = answer;
  state.token = Math.min(state.token, answer.n - 1);
  state.layer = Math.min(state.layer, answer.layers.length - 1);
  $("result").hidden = false;
  $("pan").scrollLeft = 0;
  history.replaceState(null, "", fragment() || location.pathname + location.search);
  showAll();
}

function showAll() {
  offerViews();
  showFigures();
  showComparison();
  showTokens();
  showLayers();
  select(state.token, state.layer, true);
}

function offerViews() {
  const a = state.shown, can = { decision: true, p: a.layers.some((l) => l.p), s0: a.layers.some((l) => l.s0), difference: Boolean(partner()) };
  for (const option of $("view").options) option.disabled = option.hidden = !can[option.value];
  if (!can[$("view").value]) $("view").value = "decision";
}

/* What a text costs against the same shape with every layer dense. */
function savings(cost, rowBytes) {
  if (!cost) return [];
  const saved = (part, whole) => percent(whole > 0 ? 1 - part / whole : 0);
  return [
    ["FLOPs saved", saved(cost.flops_causal, cost.dense_flops_causal), `${size(cost.flops_causal, "FLOP")} of ${size(cost.dense_flops_causal, "FLOP")}`],
    ["K and V saved", saved(cost.kv_rows, cost.dense_kv_rows), `${size(cost.kv_rows * rowBytes, "B")} of ${size(cost.dense_kv_rows * rowBytes, "B")}`],
  ];
}

function showFigures() {
  const a = state.shown, routed = a.layers.filter((l) => l.routed);
  const sum = (code) => routed.reduce((all, l) => all + l.by[code], 0), all = routed.length * a.n;
  const scored = a.logprobs ? [...a.logprobs].filter((x) => !Number.isNaN(x)) : [];
  const mean = scored.reduce((s, x) => s + x, 0) / scored.length;
  const rows = [
    ["Tokens", count(a.n), scored.length ? `perplexity ${Math.exp(-mean).toPrecision(4)}` : undefined],
    ["Layers", count(a.layers.length), `${routed.length} with a router`],
  ];
  if (all) {
    const skips = sum(0);
    rows.push(["Routed to attention", percent(sum(2) / all), `${count(sum(2))} of ${count(all)} decisions`]);
    if (skips) rows.push(["Skip the layer", percent(skips / all), `${count(skips)} of ${count(all)} decisions`]);
  }
  figures($("figures"), [...rows, ...savings(a.cost, a.rowBytes)]);
}

/* Colour by share of the layers, from the least to the most that a token of this text has. */
function tint(attended) {
  const { least, most } = state.range;
  return `rgb(var(--tint) / ${most > least ? (0.05 + (0.5 * (attended - least)) / (most - least)).toFixed(3) : 0.2})`;
}

function showTokens() {
  const a = state.shown, b = partner(), list = document.createDocumentFragment(), n = a.layers.length;
  state.range = extremes(a.attended);
  for (let i = 0; i < a.n; i++) {
    const token = element("span", visible(a.texts[i]));
    token.id = `token-${i}`;
    token.setAttribute("role", "option");
    token.setAttribute("aria-selected", "false");
    token.setAttribute("aria-label", `${a.texts[i].trim() || "white space"}, attends in ${a.attended[i]} of ${n} layers`);
    token.style.backgroundColor = tint(a.attended[i]);
    token.classList.toggle("differs", Boolean(b) && a.layers.some((l, k) => l.codes[i] !== b.layers[k].codes[i]));
    list.append(token);
  }
  $("tokens").replaceChildren(list);
  showScale();
}

function showScale() {
  const { least, most } = state.range, parts = [`${least} `];
  for (let k = 0; k < 5; k++) {
    const box = element("i");
    box.style.backgroundColor = tint(least + ((most - least) * k) / 4);
    parts.push(box);
  }
  $("scale").replaceChildren(...(most > least ? [...parts, ` ${most} of ${state.shown.layers.length} layers`] : [`All attend in ${most} of ${state.shown.layers.length} layers.`]));
}

function showLayers() {
  const a = state.shown, b = partner(), names = ["layer", "kind", "attend", "share", "", "linear", "skip", "rows of K and V"];
  const rows = a.layers.map((l, k) => {
    const by = l.by, row = [`${k}`, l.forced ? `${l.kind}, forced dense` : l.kind, count(by[2]), percent(by[2] / a.n), bar(by[2] / a.n), count(by[1]), count(by[0]), count(l.kv)];
    return b ? [...row, count(differences(l, b.layers[k]))] : row;
  });
  fillTable($("layers"), b ? [...names, "differ"] : names, rows);
}

function differences(l, m) {
  return l.codes.reduce((n, code, i) => n + (code !== m.codes[i]), 0);
}

/* ---- one token --------------------------------------------------------------------------------------------------- */

function showNext(i) {
  const a = state.shown, list = element("ol", undefined, "next"), candidates = Array.isArray(a.next[i]) ? a.next[i] : [];
  for (const c of candidates) {
    const p = Math.exp(Number(c.logprob)), best = Math.exp(Number(candidates[0].logprob)), item = element("li");
    item.append(element("code", visible(String(c.token)).replace(/\n/g, "").replace(/^ /, "␣")), bar(p / best), element("span", probability(p)));
    if (i + 1 < a.n && c.id === a.ids[i + 1]) item.className = "actual";
    list.append(item);
  }
  return candidates.length ? [element("h3", "What may come next"), list] : [];
}

function showDetail(i) {
  const a = state.shown, lp = a.logprobs?.[i];
  const first = element("p", `${quoted(a.texts[i])}, position ${i}, id ${a.ids[i]}, attends in ${a.attended[i]} of ${a.layers.length} layers`);
  if (lp !== undefined && !Number.isNaN(lp)) first.append(`; its probability after what precedes it: ${probability(Math.exp(lp))}`);
  first.append(".");
  $("detail").replaceChildren(first, ...showNext(i));
  const nested = a.layers.some((l) => l.nested), b = partner();
  const rows = a.layers.map((l, k) => {
    const row = [`${k} ${l.kind}`, WORDS[l.codes[i]], l.p ? probability(l.p[i]) : "—", rankText(l, i)];
    if (nested) row.push(l.s0 ? probability(l.s0[i]) : "—");
    if (b) row.push(b.layers[k].codes[i] === l.codes[i] ? "same" : WORDS[b.layers[k].codes[i]]);
    return row;
  });
  fillTable($("detail-layers"), ["layer", "token", "p", "rank of p", ...(nested ? ["s0"] : []), ...(b ? ["saved"] : [])], rows);
}

/* Chooses a token and a layer: outlines it, tells it, and brings it into view. */
function select(i, l, quiet) {
  const a = state.shown;
  $(`token-${state.token}`)?.setAttribute("aria-selected", "false");
  $(`token-${state.token}`)?.classList.remove("at");
  state.token = Math.max(0, Math.min(a.n - 1, i));
  state.layer = Math.max(0, Math.min(a.layers.length - 1, l));
  const token = $(`token-${state.token}`);
  token.setAttribute("aria-selected", "true");
  token.classList.add("at");
  $("tokens").setAttribute("aria-activedescendant", token.id);
  if (!quiet) token.scrollIntoView({ block: "nearest" });
  showDetail(state.token);
  tellCell(state.token, state.layer);
  drawMap();
}

function tellCell(i, l) {
  const a = state.shown, layer = a.layers[l], b = partner();
  const parts = [`Layer ${l} (${layer.kind}), token ${i} ${quoted(a.texts[i])}: ${WORDS[layer.codes[i]]}`];
  if (layer.p && !Number.isNaN(layer.p[i])) parts.push(`p ${probability(layer.p[i])}, rank ${rankText(layer, i)}`);
  if (layer.s0) parts.push(`s0 ${probability(layer.s0[i])}`);
  if (b) parts.push(`saved: ${WORDS[b.layers[l].codes[i]]}${b.layers[l].p ? `, p ${probability(b.layers[l].p[i])}` : ""}`);
  $("cell").textContent = `${parts.join("; ")}.`;
}

/* ---- the map ------------------------------------------------------------------------------------------------------ */

function palette() {
  const style = getComputedStyle(document.documentElement), names = ["attend", "linear", "skip", "here", "there", "both", "text", "muted", "panel"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/* Colours as ImageData holds them, read as 32-bit words of a little-endian machine. */
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const blend = (from, to, x) => from.map((v, k) => v + (to[k] - v) * x);
const packed = ([r, g, b]) => ((255 << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;

/* Colours of a layer's tokens from .. to-1 by view, a word each, into `out` from `at` on. */
function paintDecisions(l, from, to, out, at, c) {
  for (let i = from; i < to; i++) out[at++] = c.by[l.codes[i]];
}

function paintNumbers(values, l, from, to, out, at, c) {
  for (let i = from; i < to; i++) {
    const v = values ? values[i] : NaN;
    out[at++] = v === v ? c.ramp[Math.round(255 * v)] : l.routed ? c.panel : c.both;
  }
}

function paintDifference(l, other, from, to, out, at, c) {
  for (let i = from; i < to; i++) {
    const mine = l.codes[i], theirs = other.codes[i];
    out[at++] = mine === theirs ? c.pale[mine] : mine > theirs ? c.here : c.there;
  }
}

function words(c) {
  const skip = rgb(c.skip), attend = rgb(c.attend), panel = rgb(c.panel), by = [skip, rgb(c.linear), attend];
  return {
    by: by.map(packed),
    pale: by.map((colour) => packed(blend(colour, panel, 0.6))),
    ramp: Array.from({ length: 256 }, (_, k) => packed(blend(skip, attend, k / 255))),
    here: packed(rgb(c.here)),
    there: packed(rgb(c.there)),
    both: packed(rgb(c.both)),
    panel: packed(panel),
  };
}

/* One pixel a cell, to be enlarged; painted again only where another picture is due. */
function cellsOf(from, to, c) {
  const due = [state.shown, state.other, $("view").value, from, to, c.panel];
  if (!due.every((value, k) => value === state.painted[k])) {
    state.cells = paintCells(from, to, words(c));
    state.painted = due;
  }
  return state.cells;
}

function paintCells(from, to, c) {
  const a = state.shown, b = partner(), width = to - from, cells = new ImageData(width, a.layers.length), view = $("view").value;
  const out = new Uint32Array(cells.data.buffer);
  a.layers.forEach((l, k) => {
    if (view === "p" || view === "s0") paintNumbers(l[view], l, from, to, out, k * width, c);
    else if (view === "difference") paintDifference(l, b.layers[k], from, to, out, k * width, c);
    else paintDecisions(l, from, to, out, k * width, c);
  });
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = a.layers.length;
  canvas.getContext("2d").putImageData(cells, 0, 0);
  return canvas;
}

/* Sizes in CSS pixels. Only what is in view is drawn, so the canvas is never larger than the screen is wide. */
function mapSizes() {
  const a = state.shown, view = $("pan").clientWidth, zoom = Number($("zoom").value), room = Math.max(40, view - GUTTER);
  const cell = zoom || Math.min(28, room / a.n), row = Math.max(4, Math.min(20, Math.floor(420 / a.layers.length)));
  const seen = Math.min(a.n, Math.ceil(room / cell) + 1);
  return { view, cell, row, seen, width: GUTTER + cell * a.n, height: row * a.layers.length + 24 };
}

function drawMap() {
  const a = state.shown, canvas = $("map"), s = mapSizes(), c = palette(), scale = window.devicePixelRatio || 1, g = canvas.getContext("2d");
  if (!s.view) return;
  const shift = $("pan").scrollLeft, from = Math.min(a.n - 1, Math.floor(shift / s.cell)), to = Math.min(a.n, from + s.seen + 1);
  $("span").style.width = `${s.width}px`;
  canvas.style.width = `${Math.min(s.view, s.width)}px`;
  canvas.style.height = `${s.height}px`;
  canvas.width = Math.round(Math.min(s.view, s.width) * scale);
  canvas.height = Math.round(s.height * scale);
  g.scale(scale, scale);
  g.imageSmoothingEnabled = s.cell < 1;
  g.drawImage(cellsOf(from, to, c), GUTTER + from * s.cell - shift, 0, (to - from) * s.cell, s.row * a.layers.length);
  drawGrid(g, s, c, shift);
  drawAxes(g, s, c, shift);
  drawCursor(g, s, c, shift);
  canvas.setAttribute("aria-label", mapLabel());
  showLegend(c);
}

/* Gaps between cells, where these are large enough to be looked at one by one. */
function drawGrid(g, s, c, shift) {
  const a = state.shown, bottom = s.row * a.layers.length;
  g.fillStyle = c.panel;
  for (let k = 1; s.row >= 8 && k < a.layers.length; k++) g.fillRect(GUTTER, k * s.row - 0.5, s.view, 1);
  for (let x = GUTTER - (shift % s.cell); s.cell >= 8 && x < s.view; x += s.cell) g.fillRect(x - 0.5, 0, 1, bottom);
}

function drawAxes(g, s, c, shift) {
  const a = state.shown, bottom = s.row * a.layers.length, every = Math.ceil(13 / s.row);
  g.fillStyle = c.panel;
  g.fillRect(0, 0, GUTTER, s.height);
  g.fillStyle = c.muted;
  g.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  g.textAlign = "right";
  g.textBaseline = "middle";
  for (let k = 0; k < a.layers.length; k += every) g.fillText(every > 1 ? `${k}` : `${k} ${a.layers[k].kind}`, GUTTER - 6, (k + 0.5) * s.row, GUTTER - 8);
  g.textAlign = "left";
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((n) => n * s.cell >= 48) ?? 20000;
  for (let i = 0; i < a.n; i += step) {
    const x = GUTTER + i * s.cell - shift;
    if (x < GUTTER || x > s.view) continue;
    g.fillRect(x, bottom, 1, 5);
    g.fillText(`${i}`, x + 3, bottom + 12);
  }
}

function drawCursor(g, s, c, shift) {
  const x = GUTTER + state.token * s.cell - shift, y = state.layer * s.row, w = Math.max(2, s.cell);
  if (x + w < GUTTER) return;
  g.strokeStyle = c.text;
  g.lineWidth = 1;
  g.strokeRect(x - 0.5, 0.5, w + 1, s.row * state.shown.layers.length - 1);
  g.lineWidth = 2;
  g.strokeRect(x - 1, y, w + 2, s.row);
}

function mapLabel() {
  const a = state.shown, shares = a.layers.filter((l) => l.routed).map((l) => l.by[2] / a.n);
  if (!shares.length) return `Map of ${a.layers.length} layers and ${a.n} tokens: every token attends everywhere.`;
  return `Map of ${a.layers.length} layers and ${a.n} tokens: in layers with a router ${percent(Math.min(...shares))} to ${percent(Math.max(...shares))} of the tokens attend.`;
}

function showLegend(c) {
  const a = state.shown, seen = (code) => a.layers.some((l) => l.by[code]);
  const byView = {
    decision: [[2, c.attend], [1, c.linear], [0, c.skip]].filter(([code]) => seen(code)).map(([code, colour]) => [WORDS[code], colour]),
    p: [["0", c.skip], ["1", c.attend], ["no router", c.both], ["not asked", c.panel]],
    s0: [["0: skipped", c.skip], ["1: executed", c.attend], ["no skip router", c.both]],
    difference: [["does more here", c.here], ["does more in the saved answer", c.there], ["the same (pale)", c.linear]],
  };
  $("legend").replaceChildren(
    ...byView[$("view").value].map(([name, colour]) => {
      const item = element("span"), box = element("i");
      box.style.backgroundColor = colour;
      item.append(box, name);
      return item;
    }),
  );
}

function cellAt(event) {
  const s = mapSizes(), box = $("map").getBoundingClientRect(), a = state.shown;
  const i = Math.floor((event.clientX - box.left - GUTTER + $("pan").scrollLeft) / s.cell), l = Math.floor((event.clientY - box.top) / s.row);
  return i >= 0 && i < a.n && l >= 0 && l < a.layers.length ? [i, l] : null;
}

function bringIntoView() {
  const s = mapSizes(), x = state.token * s.cell, pan = $("pan");
  if (x < pan.scrollLeft || x + s.cell > pan.scrollLeft + s.view - GUTTER) pan.scrollLeft = x - (s.view - GUTTER) / 2;
}

/* ---- comparing, saving, links ---------------------------------------------------------------------------------------- */

function sourceOf(answer) {
  const s = answer.server;
  if (!s) return String(answer.raw.model);
  const rope = s.rope ? `${s.rope.type}${s.rope.type === "default" ? "" : ` × ${s.rope.factor}`}` : "unknown";
  return `${s.model} (${String(s.model_hash).slice(0, 12)}), ${s.dtype} on ${s.device}, RoPE ${rope}, forced dense: ${s.forced_dense_layers?.join(" ") || "none"}, dtrnet ${s.version}`;
}

function showComparison() {
  const a = state.shown, other = state.other, b = partner(), box = $("compare");
  box.hidden = $("forget").hidden = !other;
  if (!other) return;
  const lines = [`Here: ${sourceOf(a)}.`, `Saved: ${sourceOf(other)}.`];
  if (b) {
    const all = a.n * a.layers.length, differ = a.layers.reduce((n, l, k) => n + differences(l, b.layers[k]), 0);
    lines.push(`${count(differ)} of ${count(all)} decisions differ (${percent(differ / all)}).`);
    if (a.logprobs && b.logprobs) {
      const d = [...a.logprobs].map((x, i) => Math.abs(x - b.logprobs[i])).filter((x) => !Number.isNaN(x));
      if (d.length) lines.push(`Log probabilities differ by ${(d.reduce((s, x) => s + x, 0) / d.length).toPrecision(3)} on average, ${extremes(d).most.toPrecision(3)} at most.`);
    }
  } else {
    lines.push(`The saved answer has ${count(other.n)} tokens and ${other.layers.length} layers, not these tokens in as many layers: only costs can be compared.`);
  }
  const costs = element("dl", undefined, "figures");
  figures(costs, savings(other.cost, other.rowBytes).map(([name, value, note]) => [`${name}, saved answer`, value, note]));
  box.replaceChildren(...lines.map((line) => element("p", line)), costs);
}

function save() {
  const a = state.shown, file = { format: "dtrnet-routing 1", saved: new Date().toISOString(), server: a.server, text: a.text, answer: a.raw };
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file)], { type: "application/json" }));
  link.download = `routing-${String(a.raw.model).replace(/[^\w.-]/g, "_")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/* A file that `save` made, or a bare answer. */
async function compareWith(file) {
  try {
    const value = JSON.parse(await file.text());
    const other = read(value?.format === "dtrnet-routing 1" ? value.answer : value);
    other.server = value.server && typeof value.server === "object" ? value.server : null;
    state.other = other;
    if (state.shown) showAll();
    else show(other);
    say(`Compared with ${file.name}.`);
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
}

/* The text in the fragment, which never leaves the browser; "" where it is too long. */
function fragment() {
  const fields = new URLSearchParams({ text: $("text").value });
  if ($("kind").value !== "text") fields.set("as", "ids");
  if ($("bos").checked) fields.set("bos", "1");
  const link = `#${fields}`;
  return link.length <= LINK_MAX ? link : "";
}

async function copyLink() {
  const link = fragment();
  if (!link) return say(`The text is too long for a link of ${count(LINK_MAX)} characters; save the answer instead.`, true);
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is in the clipboard.");
  } catch {
    say("The address bar has the link.");
  }
}

function readFragment() {
  const fields = new URLSearchParams(location.hash.slice(1));
  if (!fields.has("text")) return false;
  $("text").value = fields.get("text");
  $("kind").value = fields.get("as") === "ids" ? "ids" : "text";
  $("bos").checked = fields.get("bos") === "1";
  return true;
}

/* ---- the server's state ------------------------------------------------------------------------------------------------ */

/* Prometheus text: name with labels -> value. */
function readMetrics(text) {
  const series = new Map();
  for (const line of text.split("\n")) {
    const at = line.lastIndexOf(" ");
    if (at > 0 && !line.startsWith("#")) series.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return series;
}

/* [{layer, kind, rows}] of a metric with these labels. */
function byLayer(series, name) {
  const out = [];
  for (const [key, value] of series) {
    const found = key.startsWith(`${name}{`) && /layer="(\d+)",kind="([^"]*)"/.exec(key);
    if (found) out[Number(found[1])] = { kind: found[2], rows: value };
  }
  return out;
}

function showLive(now, before) {
  const m = now.series, get = (name) => m.get(`dtrnet_${name}`) ?? 0;
  const rate = (name) => (before ? Math.max(0, get(name) - (before.series.get(`dtrnet_${name}`) ?? 0)) / (now.at - before.at) : 0);
  const held = get("kv_held_rows"), total = get("kv_pool_rows"), bytes = get("kv_held_bytes");
  figures($("live"), [
    ["Running", count(get("running_sequences")), `${count(get("queue_sequences"))} waiting`],
    ["Tokens a second", count(rate("rows_computed_total") + rate("rows_rescored_total")), `${count(rate("tokens_generated_total"))} generated`],
    ["Tokens so far", count(get("rows_computed_total")), `${count(get("rows_cached_total"))} more from the cache`],
    ["Rows of K and V", percent(total ? held / total : 0), `${count(held)} of ${count(total)}, ${size(bytes, "B")}`],
  ]);
  const all = get("rows_computed_total"), top = Math.max(1, all);
  const rows = byLayer(m, "dtrnet_layer_rows_routed_total").map(({ kind, rows }, l) => {
    const kept = kind === "dllm" ? all : rows; /* D-LLM keeps those of all tokens */
    return [`${l}`, kind, count(kept), percent(kept / top), bar(kept / top)];
  });
  fillTable($("live-layers"), ["layer", "kind", "rows", "of the tokens", ""], rows);
}

let lastLive = null;

async function pollLive() {
  if (!document.hidden) {
    try {
      const response = await fetch("metrics", { cache: "no-store", credentials: "omit" });
      check(response.ok, response.status === 503 ? "The model is being loaded." : `metrics: ${response.status}`);
      const now = { at: performance.now() / 1000, series: readMetrics(await response.text()) };
      showLive(now, lastLive);
      lastLive = now;
    } catch (error) {
      lastLive = null;
      figures($("live"), [["State", error instanceof TypeError ? "The server does not answer." : error.message]]);
    }
  }
  setTimeout(pollLive, 2000);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-Infinity, 0], End: [Infinity, 0] };

/* rows: whether up and down change the layer; in the list of tokens they are further tokens. */
function onKey(event, rows) {
  const step = STEPS[event.key];
  if (!step || !state.shown || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  select(state.token + step[0] + (rows ? 0 : step[1]), state.layer + (rows ? step[1] : 0));
  bringIntoView();
}

function tokenOf(event) {
  const token = event.target.closest?.("[role=option]");
  return token ? Number(token.id.slice("token-".length)) : -1;
}

let drawing = false;

/* At most once a frame. */
function redraw() {
  if (drawing || !state.shown) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawMap();
  });
}

function listen() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  $("tokens").addEventListener("keydown", (event) => onKey(event, false));
  $("tokens").addEventListener("mouseover", (event) => tokenOf(event) >= 0 && select(tokenOf(event), state.layer, true));
  $("tokens").addEventListener("click", (event) => tokenOf(event) >= 0 && select(tokenOf(event), state.layer, true));
  $("map").addEventListener("keydown", (event) => onKey(event, true));
  $("map").addEventListener("mousemove", (event) => {
    const cell = cellAt(event);
    if (cell) tellCell(...cell);
  });
  $("map").addEventListener("mouseleave", () => state.shown && tellCell(state.token, state.layer));
  $("map").addEventListener("click", (event) => {
    const cell = cellAt(event);
    if (cell) select(...cell);
  });
  for (const id of ["view", "zoom"]) $(id).addEventListener("change", redraw);
  $("pan").addEventListener("scroll", redraw);
  window.addEventListener("resize", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("hashchange", () => readFragment() && ask());
  $("save").addEventListener("click", save);
  $("link").addEventListener("click", copyLink);
  $("other").addEventListener("change", () => $("other").files[0] && compareWith($("other").files[0]));
  $("forget").addEventListener("click", () => {
    state.other = null;
    $("other").value = "";
    showAll();
  });
}

listen();
pollLive();
call("version").then((r) => r.json()).then(describe).catch(() => {});
if (readFragment()) ask();
