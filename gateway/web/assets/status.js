// The tiles: the fleet at a glance, polled.
import { get } from "./stream.js";
import { byId, colour, count, put, surface } from "./text.js";

const every = 2000;
const kept = 90; // readings of the rate

const rates = [];

export function start() {
  poll();
}

async function poll() {
  try {
    if (!document.hidden) show(await get("/v1/status"));
  } catch {
    // The link in the header tells; the next poll tries again.
  }
  setTimeout(poll, every);
}

function show(status) {
  const twins = Number(status.twins);
  const online = Number(status.online);
  put(byId("stat-twins"), count(twins));
  put(byId("stat-online"), count(online));
  byId("stat-online-bar").style.width = twins ? `${(100 * online) / twins}%` : "0";
  put(byId("stat-rate"), count(status.samplesPerSecond));
  rates.push(status.samplesPerSecond);
  if (rates.length > kept) rates.shift();
  const nodes = status.nodes.length;
  put(byId("stat-nodes"), count(nodes));
  put(byId("stat-nodes-sub"), status.partitions.length ? `${count(status.partitions.length)} partitions` : "\u00a0");
  put(byId("stat-twins-sub"), twins ? `${count(twins - online)} offline` : "no device has sent anything yet");
  draw();
}

function draw() {
  const { g, w, h } = surface(byId("stat-rate-line"));
  const top = Math.max(1, ...rates) * 1.15;
  const x = (i) => w - ((rates.length - 1 - i) * w) / (kept - 1);
  const y = (v) => h - 1 - (v / top) * (h - 4);
  if (rates.length < 2) return;
  g.beginPath();
  rates.forEach((v, i) => g.lineTo(x(i), y(v)));
  g.strokeStyle = colour("accent");
  g.lineWidth = 1.6;
  g.lineJoin = "round";
  g.stroke();
  g.lineTo(w, h);
  g.lineTo(x(0), h);
  g.fillStyle = colour("band");
  g.fill();
}
