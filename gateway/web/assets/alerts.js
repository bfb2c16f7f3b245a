// Open alerts, live: one watch for the page, shared by the list and by a twin's view.
import { Watch } from "./stream.js";
import { ago, byId, count, el, put, value } from "./text.js";

const shown = 100; // rows; the rest is only counted
const rank = { CRITICAL: 3, WARNING: 2, INFO: 1 };

const open = new Map(); // id → alert
const listeners = new Set();
let pending = false;

/** Has fn called with every alert that changes. */
export function onAlert(fn) {
  listeners.add(fn);
  return () => listeners.delete(fn);
}

export function start(link) {
  let fresh = new Set();
  let snapshot = true;
  new Watch("/v1/alerts:watch", {}, {
    up: () => link("live"),
    down: (reason) => link("lost", reason),
    message(m) {
      if (m.gap) { fresh = new Set(); snapshot = true; }
      const alert = m.snapshot ?? m.transition;
      if (m.snapshot) {
        if (!snapshot) { fresh = new Set(); snapshot = true; }
        fresh.add(alert.id);
      }
      if (alert) take(alert);
      if (m.snapshotDone) {
        if (!snapshot) fresh = new Set();
        // What a snapshot no longer has was resolved while nobody looked.
        for (const id of open.keys()) if (!fresh.has(id)) open.delete(id);
        snapshot = false;
        redraw();
      }
    },
  });
  setInterval(draw, 1000);
}

function take(alert) {
  if (alert.state === "RESOLVED") open.delete(alert.id);
  else open.set(alert.id, alert);
  for (const fn of listeners) fn(alert);
  redraw();
}

function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

function draw() {
  const all = [...open.values()];
  const worst = all.filter((a) => a.severity === "CRITICAL").length;
  put(byId("stat-alerts"), count(all.length));
  put(byId("stat-alerts-sub"), all.length ? `${count(worst)} critical` : "all quiet");
  byId("tile-alerts").classList.toggle("alarm", worst > 0);
  put(byId("alerts-total"), all.length > shown ? `${shown} of ${count(all.length)}` : count(all.length));
  byId("alerts-empty").hidden = all.length > 0;
  all.sort((a, b) => rank[b.severity] - rank[a.severity] || (a.fireTime < b.fireTime ? 1 : -1));
  fill(byId("alerts-rows"), all.slice(0, shown));
}

/** Fills a list with alerts, one row each, reusing rows that stay. */
export function fill(list, alerts) {
  const old = new Map([...list.children].map((row) => [row.dataset.id, row]));
  let at = list.firstElementChild;
  for (const alert of alerts) {
    const row = old.get(alert.id) ?? newRow(alert);
    old.delete(alert.id);
    update(row, alert);
    if (row === at) at = at.nextElementSibling;
    else list.insertBefore(row, at);
  }
  for (const row of old.values()) row.remove();
}

function newRow(alert) {
  const link = el("a", "", el("i", "bar"), el("span", "who"), el("span", "when"), el("span", "why"));
  link.href = `#/twins/${encodeURIComponent(alert.device)}`;
  const row = el("li", "", link);
  row.dataset.id = alert.id;
  return row;
}

function update(row, alert) {
  const resolved = alert.state === "RESOLVED";
  row.className = `${alert.severity.toLowerCase()} ${alert.state.toLowerCase()}`;
  const [who, when, why] = row.querySelectorAll(".who, .when, .why");
  const what = alert.metric || alert.rule;
  if (who.dataset.text !== what) {
    who.dataset.text = what;
    who.replaceChildren(alert.device, el("span", "", what));
  }
  put(when, resolved ? `resolved ${ago(alert.resolveTime)}` : ago(alert.fireTime ?? alert.createTime));
  const level = resolved ? "resolved" : alert.severity.toLowerCase();
  const reason = alert.reason || `${alert.rule}: value ${value(alert.value)}, score ${value(alert.score)}`;
  if (why.dataset.text !== level + reason) {
    why.dataset.text = level + reason;
    why.replaceChildren(el("span", "level", level), reason);
  }
}
