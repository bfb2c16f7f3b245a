// A metric over time: its values, the baseline's mean ± k·σ as it was at each value, alert marks.
import { colour, surface, value } from "./text.js";

export const sigmas = 4; // builtin.zscore warns there
const margin = { top: 14, right: 12, bottom: 24, left: 54 };
const gap = 0.12; // of the window: a longer silence breaks the line

/**
 * points: {t, v, mean, stddev} by time; marks: {from, to, severity}; times in ms.
 */
export function draw(canvas, points, marks, seconds) {
  const { g, w, h } = surface(canvas);
  const now = Date.now();
  const start = now - seconds * 1000;
  const shown = points.filter((p) => p.t >= start - 1000);
  const box = { left: margin.left, right: w - margin.right, top: margin.top, bottom: h - margin.bottom };
  const [low, high] = range(shown);
  const x = (t) => box.left + ((t - start) / (now - start)) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);

  g.font = "11.5px system-ui, sans-serif";
  axes(g, box, low, high, y, seconds);
  if (shown.length === 0) {
    g.fillStyle = colour("muted");
    g.textAlign = "center";
    g.fillText("waiting for samples", (box.left + box.right) / 2, (box.top + box.bottom) / 2);
    return;
  }
  g.save();
  g.beginPath();
  g.rect(box.left, 0, box.right - box.left, box.bottom);
  g.clip();
  alarms(g, box, marks, x, start, now);
  const broken = seconds * 1000 * gap;
  band(g, shown, x, y, broken);
  line(g, shown, x, y, broken);
  g.restore();
}

function range(points) {
  let low = Infinity;
  let high = -Infinity;
  for (const p of points) {
    const spread = p.stddev ? sigmas * p.stddev : 0;
    const base = p.stddev ? p.mean : p.v;
    low = Math.min(low, p.v, base - spread);
    high = Math.max(high, p.v, base + spread);
  }
  if (!(low <= high)) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - pad, high + pad];
}

/** Steps of 1, 2 or 5 times a power of ten, about n of them. */
function ticks(low, high, n) {
  const raw = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((m) => m * power >= raw) ?? 10);
  const out = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) out.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return out;
}

function axes(g, box, low, high, y, seconds) {
  g.strokeStyle = colour("line");
  g.fillStyle = colour("muted");
  g.lineWidth = 1;
  g.textAlign = "right";
  g.textBaseline = "middle";
  for (const v of ticks(low, high, 5)) {
    const at = Math.round(y(v)) + 0.5;
    g.beginPath();
    g.moveTo(box.left, at);
    g.lineTo(box.right, at);
    g.stroke();
    g.fillText(value(v), box.left - 8, at);
  }
  g.textBaseline = "alphabetic";
  const parts = 5;
  for (let i = 0; i <= parts; i++) {
    const s = Math.round(seconds * (1 - i / parts));
    g.textAlign = i === 0 ? "left" : i === parts ? "right" : "center";
    const text = s === 0 ? "now" : s < 120 ? `−${s} s` : `−${+(s / 60).toFixed(1)} min`;
    g.fillText(text, box.left + (i / parts) * (box.right - box.left), box.bottom + 16);
  }
}

function alarms(g, box, marks, x, start, now) {
  for (const mark of marks) {
    if (mark.to < start || mark.from > now) continue;
    const from = x(Math.max(mark.from, start));
    const to = x(Math.min(mark.to, now));
    g.fillStyle = colour(mark.severity.toLowerCase());
    g.globalAlpha = 0.1;
    g.fillRect(from, box.top, Math.max(to - from, 1), box.bottom - box.top);
    g.globalAlpha = 1;
    if (mark.from < start) continue;
    g.fillRect(from - 1, box.top, 2, box.bottom - box.top);
    g.beginPath();
    g.moveTo(from - 6, box.top - 10);
    g.lineTo(from + 6, box.top - 10);
    g.lineTo(from, box.top);
    g.fill();
  }
}

/** Runs of points without a long silence between them. */
function runs(points, broken) {
  const out = [];
  points.forEach((p, i) => {
    if (i === 0 || p.t - points[i - 1].t > broken) out.push([]);
    out.at(-1).push(p);
  });
  return out;
}

function band(g, points, x, y, broken) {
  g.fillStyle = colour("band");
  for (const run of runs(points.filter((p) => p.stddev > 0), broken)) {
    g.beginPath();
    for (const p of run) g.lineTo(x(p.t), y(p.mean + sigmas * p.stddev));
    for (const p of [...run].reverse()) g.lineTo(x(p.t), y(p.mean - sigmas * p.stddev));
    g.fill();
    g.beginPath();
    for (const p of run) g.lineTo(x(p.t), y(p.mean));
    g.strokeStyle = colour("muted");
    g.setLineDash([4, 4]);
    g.lineWidth = 1;
    g.stroke();
    g.setLineDash([]);
  }
}

function line(g, points, x, y, broken) {
  g.strokeStyle = g.fillStyle = colour("accent");
  g.lineWidth = 1.8;
  g.lineJoin = "round";
  for (const run of runs(points, broken)) {
    g.beginPath();
    for (const p of run) g.lineTo(x(p.t), y(p.v));
    g.stroke();
  }
  const last = points.at(-1);
  g.beginPath();
  g.arc(x(last.t), y(last.v), 3.2, 0, 7);
  g.fill();
}
