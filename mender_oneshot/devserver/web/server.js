// Requests to the management API. The token is kept here only: a reload of the page logs in again.

import { shown } from "./texts.js";

const LOGIN = "/api/management/v1/useradm/auth/login";
const ARTIFACTS = "/api/management/v1/deployments/artifacts";
let token = "";

export class Rejected extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const currentToken = () => token;

export function forgetToken() {
  token = "";
}

export async function request(method, path, body, headers = {}) {
  const sent = token ? { Authorization: `Bearer ${token}`, ...headers } : headers;
  if (body) sent["Content-Type"] = "application/json";
  const init = { method, headers: sent, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store" };
  const response = await fetch(path, init);
  if (response.ok) return response;
  const text = await response.text();
  let reason = response.statusText;
  try {
    reason = JSON.parse(text).error ?? reason;
  } catch { /* not JSON */ }
  throw new Rejected(response.status, shown(reason, 300));
}

export async function login(user, password) {
  const words = new TextEncoder().encode(`${user}:${password}`);
  const basic = btoa(String.fromCharCode(...words));
  token = "";
  const response = await request("POST", LOGIN, null, { Authorization: `Basic ${basic}` });
  token = await response.text();
}

// Upload an artifact: by XMLHttpRequest, because fetch does not report the progress.
export function upload(file, bar) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("artifact", file, "artifact.mender");
    const sent = new XMLHttpRequest();
    sent.open("POST", ARTIFACTS);
    sent.setRequestHeader("Authorization", `Bearer ${token}`);
    sent.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
    sent.onloadend = () => {
      bar.hidden = true;
      if (sent.status === 201) return resolve();
      let reason = "the connection was lost";
      try {
        reason = JSON.parse(sent.responseText).error;
      } catch { /* no answer */ }
      reject(new Rejected(sent.status, `${shown(file.name, 80)}: ${shown(reason, 300)}`));
    };
    bar.value = 0;
    bar.hidden = false;
    sent.send(form);
  });
}
