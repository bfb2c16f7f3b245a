// The list of twins: one page of it, kept live by a watch on the twins shown and by reading the
// page again now and then, so that a fleet of any size costs the browser fifty rows.
import { get, Watch } from "./stream.js";
import { ago, byId, count, el, put, value } from "./text.js";

const size = 50;
const again = 5000; // ms between readings of the page
const fields = "id,online,lastSeen,metrics,openAlerts,counters";

const state = { filter: "", order: "id", tokens: [""], next: "", total: 0 };
const rows = new Map(); // id → row
let watch = null;
let watched = "";
let timer = 0;
let reading = 0;

export function start() {
  byId("list-form").addEventListener("submit", (event) => {
    event.preventDefault();
    turn({ filter: expression(byId("list-filter").value), tokens: [""] });
  });
  byId("list-filter").addEventListener("search", () => byId("list-form").requestSubmit());
  byId("list-order").addEventListener("change", (event) => turn({ order: event.target.value, tokens: [""] }));
  byId("list-next").addEventListener("click", () => turn({ tokens: [...state.tokens, state.next] }));
  byId("list-prev").addEventListener("click", () => turn({ tokens: state.tokens.slice(0, -1) }));
  byId("list-rows").addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) location.hash = `#/twins/${encodeURIComponent(row.dataset.id)}`;
  });
  setInterval(() => { for (const row of rows.values()) tick(row); }, 1000);
}

/** Goes live, or rests while another view is open. */
export function show(on) {
  clearTimeout(timer);
  if (on) read();
  else follow([]);
}

/** What people type: an id or part of one, or CEL if it looks like an expression. */
function expression(text) {
  text = text.trim();
  return /^[A-Za-z0-9._:@-]+$/.test(text) && !/^(online|quarantined|true|false)$/.test(text)
    ? `id.contains(${JSON.stringify(text)})` : text;
}

function turn(change) {
  Object.assign(state, change);
  read();
}

async function read() {
  clearTimeout(timer);
  const mine = ++reading;
  try {
    const page = document.hidden ? null : await get("/v1/twins", {
      filter: state.filter, orderBy: state.order, pageSize: size, pageToken: state.tokens.at(-1), readMask: fields,
    });
    if (mine !== reading) return; // a newer one is under way
    if (page) draw(page);
    byId("list-error").hidden = true;
  } catch (error) {
    if (mine !== reading) return;
    put(byId("list-error"), error.message);
    byId("list-error").hidden = false;
  }
  if (!byId("overview").hidden) timer = setTimeout(read, again);
}

function draw(page) {
  state.next = page.nextPageToken;
  state.total = Number(page.totalSize);
  const body = byId("list-rows");
  const stay = new Set(page.twins.map((twin) => twin.id));
  for (const [id, row] of rows) {
    if (!stay.has(id)) { row.remove(); rows.delete(id); }
  }
  page.twins.forEach((twin, i) => {
    const row = rows.get(twin.id) ?? newRow(twin.id);
    update(row, twin);
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
  });
  put(byId("list-total"), count(state.total));
  const first = (state.tokens.length - 1) * size;
  put(byId("list-page"), page.twins.length ? `${count(first + 1)}–${count(first + page.twins.length)} of ${count(state.total)}` : "");
  byId("list-prev").disabled = state.tokens.length < 2;
  byId("list-next").disabled = !state.next;
  const empty = byId("list-empty");
  empty.hidden = page.twins.length > 0;
  put(empty, state.filter ? "No twin matches." : "No twins yet. The first message of a device makes one.");
  follow([...stay]);
}

/** Watches the twins shown. */
function follow(ids) {
  const key = [...ids].sort().join(",");
  if (key === watched) return;
  watched = key;
  watch?.close();
  watch = ids.length === 0 ? null : new Watch("/v1/twins:watch", { ids, readMask: fields }, {
    message(m) {
      const twin = m.snapshot ?? m.changed;
      const row = rows.get(twin?.id ?? m.deletedId);
      if (!row) return;
      if (twin) update(row, twin);
      else { row.remove(); rows.delete(m.deletedId); }
    },
  });
}

function newRow(id) {
  const row = el("tr", "go",
    el("td", "narrow", el("i", "dot")), el("td", "id", el("a", "", id)), el("td", "values"), el("td", "right"), el("td", "right muted"));
  row.querySelector("a").href = `#/twins/${encodeURIComponent(id)}`;
  row.dataset.id = id;
  row.chips = new Map();
  rows.set(id, row);
  return row;
}

function update(row, twin) {
  const [state, , values, samples] = row.children;
  const dot = state.firstChild;
  dot.className = `dot ${twin.openAlerts.length ? "alarm" : twin.online ? "on" : ""}`;
  dot.title = `${twin.online ? "online" : "offline"}${twin.openAlerts.length ? `, ${twin.openAlerts.length} open alerts` : ""}`;
  for (const name of Object.keys(twin.metrics).sort()) {
    const metric = twin.metrics[name];
    let chip = row.chips.get(name);
    if (!chip) {
      chip = el("span", "chip", name, el("b"));
      row.chips.set(name, chip);
      values.append(chip);
    }
    const score = Math.abs(metric.score ?? 0);
    chip.className = score >= 6 ? "chip wild" : score >= 4 ? "chip odd" : "chip";
    put(chip.lastChild, value(metric.value));
  }
  put(samples, count(twin.counters?.applied));
  row.seen = twin.lastSeen;
  tick(row);
}

function tick(row) {
  put(row.lastChild, ago(row.seen));
}
