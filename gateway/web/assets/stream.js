// Reading the JSON API: single answers, and watches that come back by themselves.

/** Says why the API refused. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message || `HTTP ${status}`);
    this.status = status;
  }
}

/** The token that this tab shows to the API; "" where nobody asks for one. */
export function token() {
  try { return sessionStorage.getItem("token") ?? ""; } catch { return ""; }
}

export function keepToken(value) {
  try { sessionStorage.setItem("token", value); } catch { /* storage may be forbidden */ }
}

function headers() {
  const shown = token();
  return shown ? { Authorization: `Bearer ${shown}` } : {};
}

function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

async function refuse(response) {
  if (response.status === 401) window.dispatchEvent(new Event("unauthenticated"));
  throw new ApiError(response.status, await response.json().catch(() => undefined));
}

/** GET one answer. */
export async function get(path, params, signal) {
  const response = await fetch(address(path, params), { signal, headers: headers() });
  if (!response.ok) await refuse(response);
  return response.json();
}

async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Follows a watch until close(). It reconnects where it stopped, by resume token, with growing
 * pauses, and rests while the page is hidden: browsers allow only six connections to a host.
 * handlers: message(m) for every line, up(), down(reason).
 */
export class Watch {
  constructor(path, params, handlers) {
    Object.assign(this, { path, params, handlers, token: "", closed: false, abort: null });
    this.seen = () => {
      if (document.hidden) this.abort?.abort();
      else this.wake?.();
    };
    document.addEventListener("visibilitychange", this.seen);
    this.run();
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.seen);
    this.abort?.abort();
    this.wake?.();
  }

  async run() {
    for (let failures = 0; !this.closed; ) {
      if (document.hidden) {
        await new Promise((resolve) => { this.wake = resolve; });
        continue;
      }
      try {
        await this.once(() => { failures = 0; });
        if (!this.closed && !document.hidden) this.handlers.down?.("the connection ended");
      } catch (error) {
        if (this.closed) return;
        if (document.hidden) continue;
        if (error.status === 400) this.token = ""; // a token nobody knows any more
        this.handlers.down?.(error.message);
      }
      await wait(Math.min(8000, 250 * 2 ** failures++));
    }
  }

  async once(works) {
    this.abort = new AbortController();
    const params = { ...this.params, resumeToken: this.token };
    const response = await fetch(address(this.path, params), { signal: this.abort.signal, headers: headers() });
    if (!response.ok) await refuse(response);
    this.handlers.up?.();
    for await (const message of linesOf(response)) {
      if (this.closed) return;
      if (message.error) throw new ApiError(0, message.error);
      works();
      this.handlers.message(message);
      this.token = message.resumeToken;
    }
  }
}
