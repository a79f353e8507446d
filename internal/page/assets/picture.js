// The picture: a list of namespaces, of which only the visible part is in the document, a list of
// hosts, and lines between them.

import {badge, el, href, labels, levels} from "./dom.js";

const rowHeight = 40, hostHeight = 34, hostGap = 6, spare = 4, chips = 3;
// What the states of egress IPs look like, besides their colours.
const marks = {Active: "●", Standby: "○", HostOffline: "✕", Unassigned: "–", Conflict: "≠", Invalid: "!"};
const svg = "http://www.w3.org/2000/svg";
const rank = Object.fromEntries(levels.map((l, i) => [l, i]));

// words are what a search looks in.
function words(g) {
  if (!g.words) {
    const parts = [g.id, g.reason, labels[g.level]];
    for (const r of g.requests) parts.push(r.ip, r.host || "", r.state, r.reason);
    g.words = parts.join(" ").toLowerCase();
  }
  return g.words;
}

export class Picture {
  constructor(store, root, onShown) {
    this.store = store;
    this.onShown = onShown;
    this.query = "";
    this.level = "";
    this.shown = [];
    this.rows = new Map(); // by id
    this.hostItems = new Map(); // by name
    this.paths = [];
    this.current = ""; // id of the row that the keyboard is at
    this.hot = null; // what lines are shown of: {group} or {host}
    this.spacer = el("div", {class: "rows", role: "presentation"});
    this.scroller = el("div", {class: "scroller", role: "grid", "aria-label": "Namespaces with their egress IPs and hosts, worst first; arrow keys move", "aria-colcount": 3}, this.spacer);
    this.lines = document.createElementNS(svg, "svg");
    this.lines.setAttribute("class", "lines");
    this.lines.setAttribute("aria-hidden", "true");
    this.hosts = el("ul", {class: "hosts", "aria-label": "Hosts"});
    this.box = el("div", {class: "picture"}, this.scroller, this.hosts, this.lines);
    root.append(this.box, el("p", {class: "legend"}, "Lines lead from a namespace to the hosts of its egress IPs: solid if the host’s agent reports that it has the address, dashed if that is not known or not in order. ● is in use, ○ stands by."));
    this.listen();
  }

  listen() {
    this.scroller.addEventListener("scroll", () => this.draw(), {passive: true});
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.spacer.addEventListener("keydown", (e) => this.key(e));
    const heat = (e) => {
      const row = e.target.closest("[data-id]"), host = e.target.closest("[data-host]");
      this.hot = row ? {group: row.dataset.id} : host ? {host: host.dataset.host} : null;
      if (row && e.type === "focusin") this.current = row.dataset.id;
      this.draw();
    };
    for (const part of [this.spacer, this.hosts]) {
      part.addEventListener("mouseover", heat);
      part.addEventListener("focusin", heat);
      part.addEventListener("mouseleave", () => { this.hot = null; this.draw(); });
      part.addEventListener("focusout", () => { this.hot = null; this.draw(); });
    }
  }

  filter(query, level) {
    this.query = query;
    this.level = level;
    this.current = ""; // Tab leads to the first row again
    this.scroller.scrollTop = 0;
    this.update();
  }

  // update chooses and orders the rows. Those that request nothing are shown if they are asked for.
  update() {
    const wanted = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = [];
    for (const g of this.store.groups.values()) {
      if (this.level ? g.level !== this.level : g.level === "none" && wanted.length === 0) continue;
      if (wanted.every((w) => words(g).includes(w))) shown.push(g);
    }
    shown.sort((a, b) => rank[a.level] - rank[b.level] || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    this.shown = shown;
    this.at = new Map(shown.map((g, i) => [g.id, i]));
    if (!this.at.has(this.current)) this.current = shown.length ? shown[0].id : "";
    this.spacer.style.height = `${shown.length * rowHeight}px`;
    this.scroller.setAttribute("aria-rowcount", shown.length);
    this.box.style.height = `${Math.min(Math.max(shown.length * rowHeight + 4, Math.min(this.store.hosts.size, 24) * (hostHeight + hostGap), 3 * rowHeight), Math.max(0.62 * innerHeight, 8 * rowHeight))}px`;
    this.onShown(shown.length, this.store.groups.size);
    this.draw();
  }

  draw() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => { this.due = 0; this.render(); });
  }

  render() {
    const height = this.scroller.clientHeight, top = this.scroller.scrollTop;
    const first = Math.max(0, Math.floor(top / rowHeight) - spare);
    const last = Math.min(this.shown.length, Math.ceil((top + height) / rowHeight) + spare);
    const keep = new Set();
    for (let i = first; i < last; i++) keep.add(this.shown[i].id);
    // The row that has the focus must not go, and one that has none must be there for Tab.
    if (this.current) keep.add(this.current);
    for (const [id, row] of this.rows) {
      if (!keep.has(id)) { row.remove(); this.rows.delete(id); }
    }
    let before = null;
    for (const i of [...keep].map((id) => this.at.get(id)).sort((a, b) => a - b)) {
      const row = this.row(this.shown[i], i);
      if (row.previousElementSibling !== before || row.parentNode !== this.spacer) this.spacer.insertBefore(row, before ? before.nextElementSibling : this.spacer.firstElementChild);
      before = row;
    }
    const visible = this.shown.slice(Math.floor(top / rowHeight), Math.ceil((top + height) / rowHeight));
    const places = this.placeHosts(visible, height);
    this.connect(visible, places, Math.floor(top / rowHeight) * rowHeight - top, height);
  }

  // row returns the element of a group, made again if the group has changed.
  row(g, i) {
    let row = this.rows.get(g.id);
    if (!row || row.group !== g) {
      const fresh = this.makeRow(g);
      if (row) {
        const focused = row.contains(document.activeElement);
        row.replaceWith(fresh);
        if (focused) fresh.querySelector("a").focus({preventScroll: true});
      }
      row = fresh;
      this.rows.set(g.id, row);
    }
    row.style.transform = `translateY(${i * rowHeight}px)`;
    row.setAttribute("aria-rowindex", i + 1);
    row.link.tabIndex = g.id === this.current ? 0 : -1;
    return row;
  }

  makeRow(g) {
    const link = el("a", {href: href(g.kind, g.name), title: g.name}, g.name);
    const name = el("span", {role: "gridcell", class: "name"});
    if (g.kind === "EgressIP") name.append(el("span", {class: "kind"}, "EgressIP "));
    name.append(link);
    const ips = el("span", {role: "gridcell", class: "ips"});
    for (const r of g.requests.slice(0, chips)) {
      const where = `${r.state} ${r.host ? `on ${r.host}` : "on no host"}${r.configured === "unknown" ? ", not known to be configured" : r.configured === "no" ? ", not configured" : ""}`;
      ips.append(el("span", {class: `ip ${r.level} ${r.state}`, title: where}, el("span", {"aria-hidden": "true"}, `${marks[r.state] || ""} `), r.ip, el("span", {class: "sr"}, ` ${where}.`)));
    }
    if (g.requests.length > chips) ips.append(el("span", {class: "more"}, `+${g.requests.length - chips}`, el("span", {class: "sr"}, " more")));
    if (g.requests.length === 0) ips.append(el("span", {class: "more"}, "leaves with the node’s address"));
    const row = el("div", {role: "row", class: "row", "data-id": g.id}, el("span", {role: "gridcell", class: "state", title: g.reason}, badge(g.level)), name, ips);
    row.group = g;
    row.link = link;
    return row;
  }

  // placeHosts shows hosts, all if there is room, else those that the visible rows use; and returns where.
  placeHosts(visible, height) {
    const room = Math.max(1, Math.floor(height / (hostHeight + hostGap)));
    let names = [...this.store.hosts.values()].filter((h) => h.claims > 0 || h.level !== "none").map((h) => h.name).sort();
    if (names.length > room) {
      const used = new Set();
      for (const g of visible) for (const r of g.requests) if (r.host) used.add(r.host);
      names = names.filter((n) => used.has(n));
    }
    names = names.slice(0, room);
    const step = height / Math.max(names.length, 1), places = new Map();
    for (const [name, item] of this.hostItems) {
      if (!names.includes(name)) { item.remove(); this.hostItems.delete(name); }
    }
    let before = null;
    names.forEach((name, i) => {
      const h = this.store.hosts.get(name);
      let item = this.hostItems.get(name);
      if (!item || item.host !== h) {
        const fresh = el("li", {class: h.level, "data-host": name},
          el("a", {href: href("host", name), title: `${name}: ${h.summary}`}, el("span", {class: "host-name"}, name),
            el("span", {class: "host-more"}, `${h.summary} · ${h.used}/${h.claims}`, el("span", {class: "sr"}, " egress IPs in use"))));
        fresh.host = h;
        if (item) {
          const focused = item.contains(document.activeElement);
          item.replaceWith(fresh);
          if (focused) fresh.querySelector("a").focus({preventScroll: true});
        }
        item = fresh;
        this.hostItems.set(name, item);
      }
      const y = Math.round(step * i + (step - hostHeight) / 2);
      item.style.transform = `translateY(${y}px)`;
      if (item.previousElementSibling !== before || item.parentNode !== this.hosts) this.hosts.insertBefore(item, before ? before.nextElementSibling : this.hosts.firstElementChild);
      before = item;
      places.set(name, y + hostHeight / 2);
    });
    return places;
  }

  // connect draws the lines of the visible rows.
  connect(visible, places, offset, height) {
    const x0 = this.scroller.offsetLeft + this.scroller.offsetWidth, x1 = this.hosts.offsetLeft, middle = (x0 + x1) / 2;
    let used = 0, some = false;
    visible.forEach((g, i) => {
      const y0 = Math.min(Math.max(offset + i * rowHeight + rowHeight / 2, 0), height);
      for (const r of g.requests) {
        const y1 = places.get(r.host);
        if (y1 === undefined) continue;
        let path = this.paths[used];
        if (!path) {
          path = document.createElementNS(svg, "path");
          this.paths.push(path);
          this.lines.append(path);
        }
        used++;
        const hot = this.hot && (this.hot.group === g.id || this.hot.host === r.host);
        some = some || hot;
        path.setAttribute("d", `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}`);
        path.setAttribute("class", `${r.level} ${r.state}${hot ? " hot" : ""}`);
      }
    });
    for (const path of this.paths.splice(used)) path.remove();
    this.lines.classList.toggle("some", some);
  }

  key(e) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / rowHeight) - 1);
    const moves = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity};
    if (!(e.key in moves) || e.altKey || e.ctrlKey || e.metaKey || !this.shown.length) return;
    e.preventDefault();
    const to = Math.min(Math.max((this.at.get(this.current) || 0) + moves[e.key], 0), this.shown.length - 1);
    this.current = this.shown[to].id;
    const top = to * rowHeight, height = this.scroller.clientHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    if (top + rowHeight > this.scroller.scrollTop + height) this.scroller.scrollTop = top + rowHeight - height;
    this.render();
    this.rows.get(this.current).link.focus({preventScroll: true});
  }
}
