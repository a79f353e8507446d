// The connection to the server: what there is, and what changes.

const staleAfter = 15000; // ticks come every 5 seconds
const firstPause = 1000, lastPause = 15000; // between two attempts, in milliseconds

// Live gets events from a URL and passes them on: all(data), delta(data), state({on, at, serving, problem}).
export class Live {
  constructor(url, last, handlers) {
    this.url = url;
    this.last = last;
    this.handlers = handlers;
    this.pause = firstPause;
    this.heard = 0;
    this.at = "";
    this.serving = "";
    this.connect();
    setInterval(() => this.check(), 2000);
    addEventListener("pagehide", () => this.source && this.source.close());
    addEventListener("pageshow", (e) => { if (e.persisted) this.connect(); });
  }

  connect() {
    clearTimeout(this.retry);
    this.retry = 0;
    if (this.source) this.source.close();
    this.heard = Date.now();
    const source = new EventSource(this.last ? `${this.url}?last=${encodeURIComponent(this.last)}` : this.url);
    this.source = source;
    const on = (name, handle) => source.addEventListener(name, (e) => {
      if (this.source !== source) return;
      this.heard = Date.now();
      this.pause = firstPause;
      if (e.lastEventId) this.last = e.lastEventId;
      handle(JSON.parse(e.data));
    });
    on("all", (data) => this.handlers.all(data));
    on("delta", (data) => this.handlers.delta(data));
    on("tick", (data) => {
      this.at = data.at;
      this.serving = data.serving;
      this.say(!data.problem, data.problem || "");
    });
    source.addEventListener("error", () => {
      if (this.source !== source) return;
      this.say(false, "connecting again");
      if (source.readyState === EventSource.CLOSED) this.again();
    });
  }

  // check notices a connection that is there and says nothing.
  check() {
    if (this.retry || Date.now() - this.heard < staleAfter) return;
    this.say(false, "nothing was heard for a while; connecting again");
    this.again();
  }

  again() {
    if (this.source) this.source.close();
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.connect(), this.pause);
    this.pause = Math.min(2 * this.pause, lastPause);
  }

  say(on, problem) {
    this.handlers.state({on, problem, at: this.at, serving: this.serving});
  }
}

// Store keeps what the events say.
export class Store {
  constructor() { this.clear(); }

  clear() {
    this.groups = new Map();
    this.hosts = new Map();
    this.issues = [];
    this.changes = [];
    this.moves = [];
  }

  all(data) {
    this.clear();
    this.delta(data);
  }

  delta(data) {
    for (const g of data.groups || []) this.groups.set(g.id, g);
    for (const h of data.hosts || []) this.hosts.set(h.name, h);
    for (const id of data.noGroups || []) this.groups.delete(id);
    for (const id of data.noHosts || []) this.hosts.delete(id);
    if (data.issues) this.issues = data.issues;
    if (data.changes) this.changes = data.changes;
    if (data.moves) this.moves = data.moves;
  }
}
