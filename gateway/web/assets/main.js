// Wiring of the page: theme, link state, and which view the address names.
import * as alerts from "./alerts.js";
import * as detail from "./detail.js";
import * as list from "./list.js";
import * as status from "./status.js";
import { keepToken } from "./stream.js";
import { byId, put } from "./text.js";

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* storage may be forbidden */ }
  root.dataset.theme = kept ?? (dark.matches ? "dark" : "light");
}

function link(state, reason = "") {
  byId("link").dataset.state = state;
  byId("link").title = reason;
  put(byId("link-text"), state === "live" ? "live" : "reconnecting");
}

function route() {
  const [, id] = /^#\/twins\/(.+)$/.exec(location.hash) ?? [];
  byId("overview").hidden = id !== undefined;
  byId("detail").hidden = id === undefined;
  list.show(id === undefined);
  detail.show(id === undefined ? null : decodeURIComponent(id));
  document.title = id === undefined ? "Doppel" : `${decodeURIComponent(id)} · Doppel`;
}

window.addEventListener("unauthenticated", () => {
  if (!byId("login").open) byId("login").showModal();
});
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(byId("login-token").value.trim());
  location.reload();
});
theme();
dark.addEventListener("change", theme);
byId("theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* storage may be forbidden */ }
});
status.start();
alerts.start(link);
list.start();
detail.start();
window.addEventListener("hashchange", route);
route();
