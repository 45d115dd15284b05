"use strict";

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;

const byId = (id) => document.getElementById(id);

// What others say is put in as text, never as markup.
const element = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

const time = (millis) => new Date(millis).toLocaleString();

const duration = (seconds) => {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
};

const expiry = (days) => (days < 0 ? ["expired", "bad"] : [`${days} days left`, days < 14 ? "warn" : "good"]);

const pair = (list, name, text, kind) => list.append(element("dt", name), element("dd", text, kind));

const showOwn = (status) => {
  document.title = `${status.domain} · Aldis`;
  byId("domain").textContent = status.domain;
  byId("process").textContent = `${status.process} ${status.version}, running for ${duration((status.time - status.started) / 1000)}`;
  const list = element("dl");
  list.id = "own";
  const ready = status.health.status === "ready";
  pair(list, "State", status.health.status, ready ? "good" : "bad");
  for (const [name, text] of Object.entries(status.health.checks)) if (text !== "ok") pair(list, name, text, "bad");
  for (const trouble of status.health.degraded) pair(list, "Look at", trouble, "warn");
  if (status.strategy) pair(list, "Federation", status.strategy.replaceAll("_", " "));
  const certificate = status.certificate;
  if (certificate) {
    pair(list, "Certificate", `${certificate.names.join(", ")}, issued by ${certificate.issuer}`);
    const [left, kind] = expiry(certificate.days_left);
    pair(list, "Valid to", `${new Date(certificate.not_after).toLocaleString()}, ${left}`, kind);
    pair(list, "SHA-256", certificate.fingerprint);
  }
  byId("own").replaceWith(list);
};

const reach = (remote) => {
  if (remote.state === "suspended" || remote.state === "ended") return [remote.state, "warn"];
  const peer = remote.peer;
  if (!peer) return ["not known", undefined];
  if (peer.reachable === false || peer.breaker === "open") return ["unreachable", "bad"];
  if (peer.last_error === "federation-remote-error" && peer.last_error_time >= (peer.last_answer ?? 0) - 1000) {
    return ["refuses us", "bad"];
  }
  if (peer.reachable || peer.connected) return ["reachable", "good"];
  return ["not known", undefined];
};

const cell = (label, text, kind, note) => {
  const made = element("td", text, kind);
  made.dataset.label = label;
  if (note) made.append(element("small", note));
  return made;
};

const row = (remote) => {
  const line = element("tr");
  line.dataset.domain = remote.domain;
  const head = element("th", remote.domain);
  head.scope = "row";
  const agreed = remote.search_policy ? `${remote.state}, ${remote.search_policy.replaceAll("_", " ")}` : remote.state;
  head.append(element("small", agreed));
  const peer = remote.peer;
  const [text, kind] = reach(remote);
  const reached = cell("Reached", text, kind, peer?.build);
  reached.dataset.reach = text;
  const left = peer?.certificate_days_left;
  if (left !== undefined && left !== null && left < 14) reached.append(element("small", `its certificate: ${expiry(left)[0]}`, "warn"));
  const backlog = remote.backlog;
  const waiting = backlog ? (backlog.events === 0 ? "nothing" : `${backlog.events} events, for ${duration(backlog.oldest_seconds)}`) : "not known here";
  const old = backlog && backlog.events > 0 && backlog.oldest_seconds > 60;
  const notes = [];
  if (backlog?.paused) notes.push("held by the administrator");
  if (backlog?.dead_letters > 0) notes.push(`${backlog.dead_letters} refused for good`);
  if (backlog?.dropped > 0) notes.push(`${backlog.dropped} dropped`);
  if (backlog?.marked_lanes > 0) notes.push(`${backlog.marked_lanes} to be compared`);
  line.append(
    head,
    reached,
    cell("Since", peer?.reachable_since ? time(peer.reachable_since) : "–"),
    cell("Round trip", peer?.latency_ms !== undefined && peer?.latency_ms !== null ? `${peer.latency_ms.toFixed(1)} ms` : "–"),
    cell("Waiting", waiting, old || notes.length > 0 ? "warn" : undefined, notes.join(", ")),
    cell("Last error", peer?.last_error || "none", undefined, peer?.last_error_time ? time(peer.last_error_time) : undefined),
  );
  return line;
};

const showRemotes = (status) => {
  const body = element("tbody");
  body.append(...status.remotes.map(row));
  byId("remotes").tBodies[0].replaceWith(body);
  byId("remotes").hidden = status.remotes.length === 0;
  byId("none").hidden = status.remotes.length !== 0;
};

const limits = (status) => {
  const missing = [];
  if (!status.knows.peers) missing.push("which backends can be reached (the federator does)");
  const lanes = ["users", "conversations"].filter((name) => !status.knows.backlog.includes(name));
  if (lanes.length > 0) missing.push(`what waits in the outbox of ${lanes.join(" and ")}`);
  byId("limits").textContent = missing.length > 0 ? `This process (${status.process}) does not know ${missing.join(", and ")}.` : "";
};

let heard = null;

const ask = async () => {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const status = await answer.json();
    heard = Date.now();
    showOwn(status);
    showRemotes(status);
    limits(status);
    byId("heard").textContent = `As of ${time(status.time)}`;
    byId("heard").className = "";
  } catch {
    const last = heard === null ? "" : ` What is shown is of ${time(heard)}.`;
    byId("heard").textContent = `The backend does not answer.${last}`;
    byId("heard").className = "bad";
  }
  setTimeout(ask, EVERY_MS);
};

ask();
