// Turning values into text and elements.

/** An element with text or children. Text is never read as HTML. */
export function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets text only where it differs, which spares the browser layout. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count, which comes as a string when it has 64 bits. */
export const count = (n) => whole.format(Number(n ?? 0));

/** A measured value in four or so significant digits. */
export function value(v) {
  if (v === undefined || v === null || Number.isNaN(v)) return "–";
  const a = Math.abs(v);
  if (a !== 0 && (a >= 1e6 || a < 1e-3)) return v.toExponential(2).replaceAll("-", "−");
  return v.toLocaleString("en", { maximumFractionDigits: a >= 1000 ? 0 : a >= 100 ? 1 : a >= 1 ? 2 : 4, useGrouping: false }).replace("-", "−");
}

/** A distance in standard deviations. */
export const sigma = (v) => (v === undefined ? "–" : v.toFixed(2).replace("-", "−"));

export const millis = (time) => (time ? Date.parse(time) : NaN);

/** How long ago a time was. */
export function ago(time) {
  const s = (Date.now() - millis(time)) / 1000;
  if (Number.isNaN(s)) return "–";
  if (s < 1.5) return "now";
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** A 64-bit digest as hex. */
export const hex = (n) => BigInt(n ?? 0).toString(16).padStart(16, "0");

const colours = {};

/** A colour of the style sheet, for canvases. */
export function colour(name) {
  const theme = document.documentElement.dataset.theme;
  return (colours[theme + name] ??= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
}

/** Readies a canvas for drawing in CSS pixels. */
export function surface(canvas) {
  const { clientWidth: w, clientHeight: h } = canvas;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
  }
  const g = canvas.getContext("2d");
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, w, h);
  return { g, w, h };
}
