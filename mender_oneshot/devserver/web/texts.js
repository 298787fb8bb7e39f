// The words of the page: texts from outside made harmless, statuses, times and sizes.

const WORDS = {
  inprogress: "in progress", noauth: "no key", noartifact: "no artifact for this device type",
  "already-installed": "already installed", pause_before_installing: "paused before the installation",
  pause_before_rebooting: "paused before the reboot", pause_before_committing: "paused before the commit",
};

// Text from outside, with every invisible or reordering character replaced, and cut to a length.
export function shown(value, limit = 120) {
  const text = typeof value === "string" ? value : value == null ? "" : JSON.stringify(value);
  const visible = text.slice(0, limit).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, "\ufffd");
  return text.length > limit ? `${visible}\u2026` : visible;
}

export const shownLines = (text) => text.split("\n").map((line) => shown(line.replaceAll("\t", "    "), 4000)).join("\n");

export const word = (status) => WORDS[status] ?? shown(status);

// How long ago a time was, in words; both are Unix times.
export function ago(then, now) {
  if (then == null) return "never";
  const seconds = Math.max(0, Math.round(now - then));
  if (seconds < 5) return "now";
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
    const count = Math.floor(seconds / size);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
}

export function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; size >= 1000 && unit < 3; unit++) size /= 1000;
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

// The identity of a device.
export function label(device) {
  const parts = Object.entries(device?.identity ?? {}).slice(0, 8).map(([name, value]) => `${name}=${shown(value, 60)}`);
  return shown(parts.join(" "), 120) || "no identity";
}
