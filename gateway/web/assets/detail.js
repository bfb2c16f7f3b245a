// One twin: its chart, metrics, alerts, properties and accounts, live.
import { fill, onAlert } from "./alerts.js";
import { draw } from "./chart.js";
import { get, Watch } from "./stream.js";
import { ago, byId, count, el, hex, millis, put, sigma, value } from "./text.js";

const kept = 20_000; // points of a metric

let view = null;

/** Shows a twin, or nothing if id is null. */
export function show(id) {
  view?.close();
  view = id === null ? null : new View(id);
}

export function start() {
  byId("twin-window").addEventListener("change", () => view?.chart());
  window.addEventListener("resize", () => view?.chart());
}

class View {
  constructor(id) {
    this.id = id;
    this.series = new Map(); // metric → points
    this.recalled = new Set(); // metrics whose past was asked for
    this.alerts = new Map(); // id → alert
    this.metric = ""; // shown in the chart
    this.chosen = false; // by hand
    byId("twin-body").hidden = true;
    byId("twin-error").hidden = true;
    byId("twin-metrics").replaceChildren();
    byId("twin-table").replaceChildren();
    byId("twin-alerts").replaceChildren();
    this.abort = new AbortController();
    this.watch = new Watch("/v1/twins:watch", { ids: [id] }, { message: (m) => this.take(m), down: (why) => this.problem(why) });
    this.off = onAlert((alert) => { if (alert.device === id) this.alert(alert); });
    this.timer = setInterval(() => this.chart(), 500);
    this.past();
  }

  close() {
    this.watch.close();
    this.abort.abort();
    this.off();
    clearInterval(this.timer);
  }

  /** Reads the twin's alerts, resolved ones too. */
  async past() {
    try {
      const filter = `device == ${JSON.stringify(this.id)} && state != "PENDING"`;
      const page = await get("/v1/alerts", { filter, pageSize: 50 }, this.abort.signal);
      for (const alert of page.alerts) if (!this.alerts.has(alert.id)) this.alerts.set(alert.id, alert);
      this.drawAlerts();
    } catch (error) {
      if (error.name !== "AbortError") this.problem(error.message);
    }
  }

  /** Puts what a metric was in front of what it has been since the page looks. */
  async recall(metric) {
    this.recalled.add(metric);
    const seconds = Math.max(...[...byId("twin-window").options].map((option) => Number(option.value)));
    const now = Date.now();
    const query = { metric, start: new Date(now - seconds * 1000).toISOString(), end: new Date(now).toISOString(), pageSize: kept / 2 };
    const path = `/v1/twins/${encodeURIComponent(this.id)}/history`;
    try {
      let page = await get(path, query, this.abort.signal);
      if (page.nextPageToken) page = await get(path, { ...query, interval: `${seconds / 1000}s` }, this.abort.signal);
      const live = this.series.get(metric) ?? [];
      const until = live[0]?.t ?? Infinity;
      const past = page.points.map((p) => ({ t: millis(p.time), v: p.count === "0" ? p.value : p.mean, mean: 0, stddev: 0 }));
      this.series.set(metric, [...past.filter((p) => p.t < until), ...live]);
      this.chart();
    } catch {
      // The chart begins now; a twin that cannot be read is told of elsewhere.
    }
  }

  problem(text) {
    put(byId("twin-error"), text);
    byId("twin-error").hidden = false;
  }

  take(m) {
    const twin = m.snapshot ?? m.changed;
    if (twin) {
      byId("twin-error").hidden = true;
      this.update(twin);
    } else if (m.deletedId) {
      this.problem("This twin was deleted.");
    } else if (m.snapshotDone && !this.twin) {
      this.problem(`There is no twin ${this.id}. It appears here with its first message.`);
    }
  }

  update(twin) {
    this.twin = twin;
    for (const [name, m] of Object.entries(twin.metrics)) this.point(name, m);
    byId("twin-body").hidden = false;
    put(byId("twin-id"), twin.id);
    put(byId("twin-presence"), twin.online ? "online" : "offline");
    byId("twin-presence").classList.toggle("on", twin.online);
    byId("twin-quarantined").hidden = !twin.quarantined;
    byId("twin-tags").replaceChildren(...Object.entries(twin.tags).sort().map(([k, v]) => el("span", "", `${k}: ${v}`)));
    this.tabs(Object.keys(twin.metrics).sort());
    this.table(twin.metrics);
    this.facts();
    put(byId("twin-reported"), JSON.stringify(twin.reported ?? {}, null, 2));
    const desired = twin.desired && Object.keys(twin.desired).length > 0;
    byId("twin-desired-panel").hidden = !desired;
    if (desired) put(byId("twin-desired"), JSON.stringify({ desired: twin.desired, delta: twin.delta }, null, 2));
    this.chart();
  }

  point(name, m) {
    let points = this.series.get(name);
    if (!points) this.series.set(name, (points = []));
    const t = millis(m.time ?? this.twin.lastSeen);
    const p = { t, v: m.value, mean: m.mean, stddev: m.z === undefined ? 0 : m.stddev };
    const last = points.at(-1);
    if (last && t <= last.t) {
      if (t === last.t) points[points.length - 1] = p;
      return;
    }
    points.push(p);
    if (points.length > kept) points.splice(0, kept / 10);
  }

  alert(alert) {
    this.alerts.set(alert.id, alert);
    this.drawAlerts();
  }

  drawAlerts() {
    const all = [...this.alerts.values()].sort((a, b) => (a.createTime < b.createTime ? 1 : -1)).slice(0, 50);
    fill(byId("twin-alerts"), all);
    if (this.twin) this.tabs(Object.keys(this.twin.metrics).sort());
    byId("twin-alerts-empty").hidden = all.length > 0;
    this.chart();
  }

  tabs(names) {
    const bar = byId("twin-metrics");
    if (!names.includes(this.metric)) this.metric = names[0] ?? "";
    const alarmed = [...this.alerts.values()].find((a) => a.state === "FIRING" && names.includes(a.metric));
    if (alarmed && !this.chosen) {
      this.metric = alarmed.metric;
      this.chosen = true;
    }
    for (const name of names) {
      if ([...bar.children].some((tab) => tab.dataset.name === name)) continue;
      const tab = el("button", "", name);
      tab.type = "button";
      tab.role = "tab";
      tab.dataset.name = name;
      tab.addEventListener("click", () => { this.metric = name; this.chosen = true; this.mark(); this.chart(); });
      bar.append(tab);
    }
    this.mark();
  }

  mark() {
    for (const tab of byId("twin-metrics").children) tab.ariaSelected = String(tab.dataset.name === this.metric);
  }

  table(metrics) {
    const body = byId("twin-table");
    for (const name of Object.keys(metrics).sort()) {
      const m = metrics[name];
      let row = [...body.children].find((r) => r.dataset.name === name);
      if (!row) {
        row = el("tr", "", el("td", "id", name), ...Array.from({ length: 7 }, () => el("td", "right")));
        row.dataset.name = name;
        body.append(row);
      }
      const has = m.z !== undefined;
      [value(m.value), ...[m.mean, m.stddev, m.min, m.max].map((v) => value(has ? v : NaN)), sigma(m.z), sigma(m.score)]
        .forEach((text, i) => put(row.children[i + 1], text));
    }
  }

  facts() {
    const t = this.twin;
    list(byId("twin-facts"), [
      ["Boot · seq", `${t.boot} · ${t.seq}`], ["Version", count(t.version)], ["Last seen", ago(t.lastSeen)],
      ["Created", t.createTime ? new Date(t.createTime).toLocaleString() : "–"],
      ["Digest", hex(t.digest), "mono"], ["Set digest", hex(t.setDigest), "mono"],
      ["Owner", t.owner || "–"], ["Epoch", t.epoch],
    ]);
    const c = t.counters ?? {};
    list(byId("twin-counters"), [
      ["Applied in order", count(c.applied)], ["Late", count(c.late)], ["Duplicates", count(c.duplicate)], ["Held", count(c.held)],
      ["Dead letters", count(c.deadLettered), Number(c.deadLettered) ? "bad" : ""],
      ["Gaps", count(c.gaps)], ["Missing", count(c.missing), Number(c.missing) ? "bad" : ""],
    ]);
  }

  chart() {
    if (byId("twin-body").hidden) return;
    if (this.metric && !this.recalled.has(this.metric)) this.recall(this.metric);
    const points = this.series.get(this.metric) ?? [];
    const marks = [...this.alerts.values()].filter((a) => !a.metric || a.metric === this.metric).map((a) => ({
      from: millis(a.fireTime ?? a.createTime), to: a.resolveTime ? millis(a.resolveTime) : Infinity, severity: a.severity,
    }));
    draw(byId("chart"), points, marks, Number(byId("twin-window").value));
    const m = this.twin?.metrics[this.metric];
    put(byId("twin-reading"), m ? `${this.metric} ${value(m.value)}${m.z === undefined ? "" : ` · z ${sigma(m.z)} · score ${sigma(m.score)}`}` : "");
  }
}

/** Fills a definition list, reusing its elements. */
function list(node, facts) {
  facts.forEach(([name, text, className = ""], i) => {
    if (!node.children[2 * i]) node.append(el("dt"), el("dd"));
    put(node.children[2 * i], name);
    const dd = node.children[2 * i + 1];
    dd.className = className;
    put(dd, text);
  });
}
