// The terminal of the page: xterm.js, and the messages of deviceconnect (MessagePack) over a WebSocket.

import { FitAddon } from "./addon-fit.mjs";
import { shown } from "./texts.js";
import { Terminal } from "./xterm.mjs";

const SHELL = 1;
const FAILED = 2;
const byId = (id) => document.getElementById(id);
const utf8 = new TextEncoder();
let close = () => {};
let focus = () => false;
let openedFor = null;
let openedBy = null;

// xterm.js makes <style> elements, which the policy of the page forbids. It gets elements without an effect instead,
// whose text becomes a constructed style sheet; these are allowed.
const createElement = document.createElement.bind(document);
document.createElement = (name, options) => (name === "style" ? styleElement() : createElement(name, options));

function styleElement() {
  const made = createElement("template");
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(made, "textContent", { set: (text) => sheet.replaceSync(text) });
  made.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(made);
  };
  return made;
}

// Only what these messages contain: maps, texts, bytes, and numbers below 65536.
function pack(value) {
  if (typeof value === "number") return [0xcd, value >> 8, value & 255];
  if (value instanceof Uint8Array) return [0xc6, ...length(value.length, 4), ...value];
  if (typeof value === "string") {
    const bytes = utf8.encode(value);
    return [0xda, ...length(bytes.length, 2), ...bytes];
  }
  const members = Object.entries(value);
  return [0xde, ...length(members.length, 2), ...members.flatMap(([name, member]) => [...pack(name), ...pack(member)])];
}

const length = (size, width) => Array.from({ length: width }, (_, at) => (size >>> (8 * (width - 1 - at))) & 255);

export function unpack(buffer) {
  const view = new DataView(buffer);
  let at = 0;
  const number = (width) => {
    let value = 0;
    for (const end = at + width; at < end; at++) value = value * 256 + view.getUint8(at);
    return value;
  };
  const bytes = (size) => {
    if (size > view.byteLength - at) throw new RangeError("cut short");
    return new Uint8Array(buffer, (at += size) - size, size);
  };
  const text = (size) => new TextDecoder().decode(bytes(size));
  const many = (size, read) => {
    const items = [];
    while (size--) items.push(read());
    return items;
  };
  const map = (size) => new Map(many(size, () => [value(), value()]));
  const value = () => {
    const kind = number(1);
    if (kind < 0x80) return kind;
    if (kind < 0x90) return map(kind & 15);
    if (kind < 0xa0) return many(kind & 15, value);
    if (kind < 0xc0) return text(kind & 31);
    if (kind >= 0xe0) return kind - 256;
    if (kind <= 0xc3) return [null, undefined, false, true][kind - 0xc0];
    if (kind <= 0xc6) return bytes(number(1 << (kind - 0xc4)));
    if (kind <= 0xc9) return bytes(number(1 << (kind - 0xc7)) + 1);
    if (kind <= 0xcb) return bytes(kind === 0xca ? 4 : 8);
    if (kind <= 0xcf) return number(1 << (kind - 0xcc));
    if (kind <= 0xd3) return number(1 << (kind - 0xd0));
    if (kind <= 0xd8) return bytes((1 << (kind - 0xd4)) + 1);
    if (kind <= 0xdb) return text(number(1 << (kind - 0xd9)));
    if (kind <= 0xdd) return many(number(kind === 0xdc ? 2 : 4), value);
    return map(number(kind === 0xde ? 2 : 4));
  };
  return value();
}

function state(text) {
  byId("terminal-state").textContent = text;
}

// Report the end of a device's connection; the server closes the session only at the next key.
export function notice(connected) {
  if (openedFor && !connected.includes(openedFor)) state("The device has disconnected.");
}

// Open a terminal to a device, in place of the one that is open; if that is of the same device, return to it.
export function open(device, name, token) {
  if (openedFor === device && focus()) return;
  close();
  openedFor = device;
  openedBy = document.activeElement;
  byId("terminal-title").textContent = `Terminal: ${name}`;
  byId("terminal").hidden = false;
  document.body.classList.add("with-terminal");
  state("Connecting ...");

  const fonts = 'ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace';
  const theme = { background: "#10171b", foreground: "#e3eaed" };
  const screen = new Terminal({ fontFamily: fonts, fontSize: 14, lineHeight: 1.2, theme });
  const fit = new FitAddon();
  screen.loadAddon(fit);
  screen.open(byId("terminal-screen"));
  fit.fit();

  const url = new URL(`/api/management/v1/deviceconnect/devices/${device}/connect`, location.href);
  url.protocol = location.protocol.replace("http", "ws");
  const socket = new WebSocket(url, ["bearer-token", token]);
  socket.binaryType = "arraybuffer";
  const send = (typ, body, props = {}) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(new Uint8Array(pack({ hdr: { proto: SHELL, typ, props }, body })));
  };
  const size = () => ({ terminal_width: screen.cols, terminal_height: screen.rows });
  let ended = "";
  socket.onopen = () => send("new", new Uint8Array(), size());
  socket.onmessage = ({ data }) => {
    const message = unpack(data);
    const header = message.get("hdr");
    const body = message.get("body") ?? new Uint8Array();
    if (header.get("proto") !== SHELL) return;
    const failed = header.get("props")?.get("status") === FAILED;
    const type = header.get("typ");
    if (type === "shell") screen.write(body);
    else if (type === "new" && !failed) state("Connected. Ctrl-] leaves the terminal.");
    else if (type === "new") state((ended = `The device starts no shell: ${shown(new TextDecoder().decode(body), 200)}`));
    else if (type === "stop") state((ended = "The shell has ended."));
  };
  socket.onclose = ({ reason }) => {
    if (close === end) state(ended || (reason ? "The server has closed the session." : "The connection was lost."));
  };

  screen.onData((text) => send("shell", utf8.encode(text)));
  screen.onBinary((text) => send("shell", Uint8Array.from(text, (character) => character.charCodeAt(0))));
  screen.onResize(() => send("resize", new Uint8Array(), size()));
  screen.attachCustomKeyEventHandler((event) => {
    if (!(event.ctrlKey && event.key === "]")) return true;
    byId("terminal-close").focus();
    event.preventDefault();
    return false;
  });
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(byId("terminal-screen"));
  screen.focus();

  focus = () => {
    if (ended || socket.readyState !== WebSocket.OPEN) return false;
    screen.focus();
    return true;
  };
  const end = () => {
    close = () => {};
    openedFor = null;
    observer.disconnect();
    socket.close();
    screen.dispose();
    byId("terminal-screen").replaceChildren();
    byId("terminal").hidden = true;
    document.body.classList.remove("with-terminal");
  };
  close = end;
}

byId("terminal-close").onclick = () => {
  close();
  openedBy?.focus();
};
