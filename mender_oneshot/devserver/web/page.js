// The web page of the development server. What devices send is untrusted: it reaches the page as text only, through
// shown() and textContent, and the policy of the server admits no script and no style but its files.

import { Rejected, currentToken, forgetToken, login, request, upload } from "./server.js";
import { ago, bytes, label, shown, shownLines, word } from "./texts.js";

const API = "/api/management/v1/";
const DEVICES = "/api/management/v2/devauth/devices/";
const DEPLOYMENTS = `${API}deployments/deployments`;
const POLL_MS = 1000;
const HIDDEN_POLL_MS = 10000;
const PHASES = ["downloading", "installing", "rebooting"];
const PAUSES = {
  pause_before_installing: "installing", pause_before_rebooting: "rebooting", pause_before_committing: "rebooting",
};
const TONES = {
  accepted: "good", success: "good", "already-installed": "good", finished: "good",
  rejected: "bad", failure: "bad", aborted: "bad", noartifact: "bad", decommissioned: "bad",
  pending: "wait", preauthorized: "wait",
};
let terminal = null;
let overview = { devices: [], artifacts: [], deployments: [], deployment_count: 0, now: 0 };
const byId = (id) => document.getElementById(id);

// Log in without a question if the server admits every user; otherwise show the form.
async function begin() {
  const answer = await (await request("GET", "/devserver/page/login")).json();
  if (answer.password) {
    byId("login").hidden = false;
    byId("main").hidden = true;
    connection("Not logged in");
    byId("login").elements.user.focus();
    return false;
  }
  await login("developer@example.com", "any");
  return true;
}

async function poll() {
  let next = document.hidden ? HIDDEN_POLL_MS : POLL_MS;
  try {
    if (!currentToken() && !(await begin())) return;
    overview = await (await request("GET", "/devserver/page/overview")).json();
    byId("main").hidden = false;
    render();
    connection("Connected");
  } catch (error) {
    if (error instanceof Rejected && error.status === 401 && currentToken()) {
      forgetToken();  // the server was started again
      next = 0;
    } else {
      connection(error instanceof Rejected ? error.message : "The server does not respond", true);
    }
  }
  clearTimeout(poll.timer);
  poll.timer = setTimeout(poll, next);
}

function pollNow() {
  clearTimeout(poll.timer);
  return poll();
}

function connection(text, lost = false) {
  if (byId("connection").textContent !== text) byId("connection").textContent = text;
  byId("connection").classList.toggle("lost", lost);
}

function complain(text) {
  byId("message").firstElementChild.textContent = text;
  byId("message").hidden = !text;
}

// Perform an action of the user; show why it failed, and what there is now.
async function act(action) {
  complain("");
  try {
    await action();
  } catch (error) {
    complain(error instanceof Rejected ? `The server rejects this: ${error.message}.` : "The server does not respond.");
  }
  await pollNow();
}

// Rendering: each item keeps its elements, so that the keyboard focus and what is open survive a poll.

function element(template) {
  const made = byId(template).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of made.querySelectorAll("[data-is]")) parts[part.dataset.is] = part;
  return { made, parts };
}

function text(part, value, status) {
  if (part.textContent !== value) part.textContent = value;
  if (status !== undefined) part.dataset.tone = TONES[status] ?? "busy";
}

// Hide an element; if it has the focus, the heading of its card gets it.
function hide(part, hidden, heading) {
  if (hidden && document.activeElement === part) heading.focus();
  part.hidden = hidden;
}

function list(container, items, create, update) {
  const kept = (container.kept ??= new Map());
  const ids = new Set(items.map((item) => item.id));
  for (const [id, entry] of kept) {
    if (!ids.has(id)) {
      entry.made.remove();
      kept.delete(id);
    }
  }
  items.forEach((item, index) => {
    let entry = kept.get(item.id);
    if (!entry) kept.set(item.id, (entry = create(item)));
    if (container.children[index] !== entry.made) container.insertBefore(entry.made, container.children[index] ?? null);
    update(entry, item);
  });
}

function createDevice({ id }) {
  const entry = element("device-card");
  const current = () => overview.devices.find((device) => device.id === id);
  const decide = (status, keys) => act(async () => {
    for (const key of keys) await request("PUT", `${DEVICES}${id}/auth/${key.id}/status`, { status });
  });
  entry.parts.accept.onclick = () => {
    const keys = current().keys;
    decide("accepted", [keys.findLast((key) => key.status === "pending") ?? keys.at(-1)]);
  };
  entry.parts.reject.onclick = () => decide("rejected", current().keys.filter((key) => key.status !== "rejected"));
  entry.parts.open.onclick = () => openTerminal(current());
  entry.parts.details.ontoggle = () => showInventory(entry, current());
  return entry;
}

function updateDevice(entry, device) {
  const { parts } = entry;
  text(parts.label, label(device));
  text(parts.status, word(device.status), device.status);
  text(parts.release, shown(device.release, 80) || "not reported");
  text(parts.type, shown(device.type, 80) || "not reported");
  text(parts.contact, ago(device.contact, overview.now));
  text(parts.id, device.id.slice(0, 8));
  parts.id.title = device.id;
  const waits = device.keys.some((key) => key.status === "pending");
  hide(parts.accept, !device.keys.length || (device.status === "accepted" && !waits), parts.label);
  hide(parts.reject, device.keys.every((key) => key.status === "rejected"), parts.label);
  hide(parts.open, !device.connected, parts.label);
  if (entry.reported !== device.inventory) showInventory(entry, device);
}

// The inventory is requested when it is open, and again when the device has reported a new one.
async function showInventory(entry, device) {
  if (!entry.parts.details.open || !device) return;
  entry.reported = device.inventory;
  let attributes = [];
  try {
    attributes = (await (await request("GET", `${API}inventory/devices/${device.id}`)).json()).attributes;
  } catch (error) {
    entry.reported = undefined;
  }
  const rows = attributes.map(({ name, value }) => {
    const row = document.createElement("tr");
    for (const cell of [shown(name, 80), shown(value, 400)]) row.insertCell().textContent = cell;
    return row;
  });
  entry.parts.attributes.replaceChildren(...rows);
}

function updateArtifact({ parts }, artifact) {
  text(parts.name, shown(artifact.name));
  text(parts.size, bytes(artifact.size));
  const types = artifact.device_types.map((type) => shown(type, 40)).join(", ");
  const payloads = artifact.payloads.map((type) => shown(type, 40)).join(", ") || "no payload";
  text(parts.facts, `For ${types} \u00b7 ${payloads} \u00b7 uploaded ${ago(artifact.uploaded, overview.now)}`);
}

function createDeployment({ id }) {
  const entry = element("deployment-card");
  entry.parts.abort.onclick = () => act(() => request("PUT", `${DEPLOYMENTS}/${id}/status`, { status: "aborted" }));
  return entry;
}

// The status of a deployment, or the result if it is the same on all devices.
function result(deployment) {
  const results = new Set(deployment.devices.map((device) => device.status));
  if (deployment.status !== "finished") return deployment.status;
  return results.size === 1 ? [...results][0] : results.has("failure") ? "failure" : "finished";
}

function updateDeployment({ parts }, deployment) {
  text(parts.name, shown(deployment.name));
  text(parts.status, word(result(deployment)), result(deployment));
  text(parts.facts, `Created ${ago(deployment.created, overview.now)} \u00b7 ${deployment.id.slice(0, 8)}`);
  parts.facts.title = deployment.id;
  hide(parts.abort, deployment.status === "finished", parts.name);
  list(parts.targets, deployment.devices, () => createTarget(deployment.id), updateTarget);
}

function createTarget(deploymentId) {
  const entry = { ...element("target-row"), deploymentId, size: null };
  entry.parts.phases.replaceChildren(...["waiting", ...PHASES, "result"].map(() => document.createElement("li")));
  return entry;
}

function updateTarget(entry, target) {
  const { parts } = entry;
  const device = overview.devices.find((found) => found.id === target.id);
  text(parts.label, device ? label(device) : `removed device ${target.id.slice(0, 8)}`);
  const ended = target.finished !== null || target.status === "aborted";
  const waits = target.status === "pending" && !ended;
  const details = target.substate ? `: ${shown(target.substate, 200)}` : "";
  const took = ended && target.started ? ` after ${Math.max(1, Math.round(target.finished - target.started))} s` : "";
  const status = waits ? "waits for the next check of the device" : word(target.status) + details + took;
  text(parts.status, status, target.status);
  updatePhases(parts.phases.children, target, ended);
  parts.details.hidden = target.log === null;
  if (entry.size !== target.log) showLog(entry, target);
}

function updatePhases(steps, target, ended) {
  const now = PAUSES[target.status] ?? target.status;
  const names = ["pending", ...PHASES];
  names.forEach((name, index) => {
    const state = name === now && !ended ? "now" : index === 0 || target.history.includes(name) ? "done" : "";
    text(steps[index], index === 0 ? "waiting" : name);
    steps[index].className = state;
    if (state === "now") steps[index].setAttribute("aria-current", "step");
    else steps[index].removeAttribute("aria-current");
  });
  const final = steps[names.length];
  text(final, ended ? word(target.status) : "result");
  final.className = !ended ? "" : TONES[target.status] === "good" ? "done" : "failed";
}

async function showLog(entry, target) {
  entry.size = target.log;
  try {
    const response = await request("GET", `${DEPLOYMENTS}/${entry.deploymentId}/devices/${target.id}/log`);
    entry.parts.log.textContent = shownLines(await response.text());
    entry.parts.details.open = target.status === "failure";
  } catch (error) {
    entry.size = null;
  }
}

function options(select, choices) {
  const wanted = JSON.stringify(choices);
  if (select.choices === wanted) return;
  select.choices = wanted;
  const chosen = select.value;
  select.replaceChildren(...choices.map(([value, name]) => new Option(name, value)));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
}

function render() {
  const { artifacts, deployments } = overview;
  const first = (device) => device.status === "pending";
  const devices = overview.devices.toSorted((one, other) => first(other) - first(one));
  const newest = artifacts.toReversed();
  list(byId("devices"), devices, createDevice, updateDevice);
  list(byId("artifacts"), newest, () => element("artifact-card"), updateArtifact);
  list(byId("deployments"), deployments, createDeployment, updateDeployment);
  text(byId("device-count"), devices.length ? String(devices.length) : "");
  text(byId("artifact-count"), artifacts.length ? String(artifacts.length) : "");
  const more = overview.deployment_count > deployments.length;
  text(byId("deployment-count"), more ? `the last ${deployments.length} of ${overview.deployment_count}` : "");
  byId("no-devices").hidden = devices.length > 0;
  byId("no-deployments").hidden = deployments.length > 0;
  const accepted = devices.filter((device) => device.status === "accepted");
  const names = [...new Set(newest.map((artifact) => artifact.name))];
  const form = byId("deploy");
  options(form.elements.artifact, names.map((name) => [name, shown(name, 60)]));
  options(form.elements.device, [["", `all accepted (${accepted.length})`], ...accepted.map((d) => [d.id, label(d)])]);
  terminal?.notice(devices.filter((device) => device.connected).map((device) => device.id));
  form.querySelector("button").disabled = !accepted.length || !artifacts.length;
}

const sendAll = (files) => act(async () => {
  for (const file of files) await upload(file, byId("upload"));
});

// xterm.js is large, and loaded for the first terminal only.
async function openTerminal(device) {
  terminal ??= await import("./terminal.js");
  terminal.open(device.id, label(device), currentToken());
}

// A file may be dropped anywhere, because a browser opens one that misses.
function acceptDrops() {
  const over = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    byId("drop").classList.remove("over");
    sendAll([...event.dataTransfer.files]);
  });
}

byId("file").onchange = async ({ target }) => {
  await sendAll([...target.files]);
  target.value = "";
};
byId("deploy").onsubmit = (event) => {
  event.preventDefault();
  const { artifact, device, force } = event.target.elements;
  const where = device.value ? { devices: [device.value] } : { all_devices: true };
  const body = { name: artifact.value, artifact_name: artifact.value, force_installation: force.checked, ...where };
  act(() => request("POST", DEPLOYMENTS, body));
};
byId("login").onsubmit = (event) => {
  event.preventDefault();
  const { user, password } = event.target.elements;
  act(async () => {
    await login(user.value, password.value);
    password.value = "";
    byId("login").hidden = true;
  });
};
byId("message").querySelector("button").onclick = () => complain("");
document.addEventListener("visibilitychange", () => { if (!document.hidden && currentToken()) pollNow(); });
byId("server-url").textContent = location.origin;
acceptDrops();
poll();
