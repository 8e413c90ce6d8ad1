// The page: the token, the list of sessions and the one that is open. The address names it (#session=…), so a
// reload, a bookmark and the back button find it again.

import { Session } from "./session.js";
import { CROWDED, REFUSED } from "./socket.js";
import { Conversation, element, setText } from "./view.js";

const $ = (id) => document.getElementById(id);

let token = sessionStorage.getItem("millrace.token") ?? "";
let session = null;
let sessions = [];
const NO_SESSION = { state: { items: [] }, outgoing: [], deciding: new Set() };
const errors = new Map(); // id of the event or request, or code → its line
const conversation = new Conversation($("conversation"), (...decision) => session?.decide(...decision));

/** Read the address: take a token out of it at once, and show the session that it names. */
function route() {
  const named = new URLSearchParams(location.hash.slice(1));
  const id = named.get("session");
  const newToken = named.get("token");
  if (newToken) {
    keepToken(newToken);
    const hash = id ? `#session=${encodeURIComponent(id)}` : "";
    history.replaceState(null, "", location.pathname + location.search + hash);
  }
  if (newToken || id !== session?.id) show(id);
}

function show(id) {
  session?.close();
  session = null;
  if (id && token) {
    session = new Session(id, token, {
      change: changed,
      online: loadSessions,
      error: report,
      accepted: dismiss,
      refused: (content) => ($("input").value = [content, $("input").value].filter(Boolean).join("\n")),
    });
  }
  loadSessions();
  render();
}

function changed() {
  if (session?.connection.code === 4001) keepToken("");
  render();
}

function keepToken(text) {
  token = text;
  if (token) sessionStorage.setItem("millrace.token", token);
  else sessionStorage.removeItem("millrace.token");
}

/** A request to the edge. The answer's body, or null after having told the person what went wrong. */
async function request(path, init = {}) {
  const used = token;
  const headers = { Authorization: `Bearer ${used}`, "Content-Type": "application/json" };
  try {
    const response = await fetch(`/api/v1${path}`, { ...init, headers });
    dismiss("unreachable");
    if (response.ok) return await response.json();
    if (response.status === 401 && used === token) keepToken("");
    report({ code: `http_${response.status}`, error: response.statusText, ...(await response.json()) });
  } catch {
    // Not reached, or not answered by the edge; an open session says so and tries again.
    if (!session) report({ code: "unreachable", error: "The server cannot be reached." });
  }
  render();
  return null;
}

async function loadSessions() {
  if (!token) return;
  sessions = (await request("/sessions"))?.items ?? sessions;
  $("session-list").replaceChildren(...sessions.map(sessionLink));
  render();
}

function sessionLink({ session_id, title, state }) {
  const link = element("a", { href: `#session=${encodeURIComponent(session_id)}`, dir: "auto" }, title || session_id);
  return element("li", { "data-session-id": session_id }, link, element("small", {}, state ?? ""));
}

async function createSession(event) {
  event.preventDefault();
  const agent = $("agent").value.trim();
  const created = await request("/sessions", { method: "POST", body: JSON.stringify(agent ? { agent } : {}) });
  if (created) location.hash = `session=${encodeURIComponent(created.session_id)}`;
}

async function loadOlder() {
  const { id, state } = session;
  const query = new URLSearchParams({ before: state.before, limit: "50" });
  const page = await request(`/sessions/${encodeURIComponent(id)}/messages?${query}`);
  if (page && session?.state.before === state.before) session.addOlder(page);
}

function report(error) {
  const key = error.id ?? error.request_id ?? error.code;
  const close = element("button", { type: "button", class: "quiet", "aria-label": "Dismiss" }, "×");
  close.onclick = () => dismiss(key);
  const text = element("span", { dir: "auto" }, `${error.error ?? error.message} (${error.code})`);
  dismiss(key);
  errors.set(key, element("p", { "data-testid": "error" }, text, close));
  $("errors").append(errors.get(key));
  if (errors.size > 5) dismiss(errors.keys().next().value);
}

function dismiss(key) {
  errors.get(key)?.remove();
  errors.delete(key);
}

function send(event) {
  event.preventDefault();
  const input = $("input");
  if (!session || input.disabled || !input.value.trim()) return;
  session.say(input.value);
  input.value = "";
}

let drawing = null;

/** Draw at most once a frame of the screen, however fast frames come over the wire. */
function render() {
  drawing ??= requestAnimationFrame(draw);
}
function draw() {
  drawing = null;
  const { state: connection, code } = session?.connection ?? { state: "closed" };
  const state = session?.state;
  const online = connection === "online";

  document.body.classList.toggle("in-session", Boolean(session && token));
  $("sign-in").hidden = Boolean(token);
  $("create").hidden = !token;
  for (const item of $("session-list").children) {
    const current = item.dataset.sessionId === session?.id;
    if (current) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
  }

  const listed = sessions.find(({ session_id }) => session_id === session?.id);
  setText($("title"), session ? state.title || listed?.title || session.id : "Choose a session, or start one");
  setText($("agent-status"), agentStatus(state));
  setText($("status"), session ? connection : "no session");
  $("status").dataset.state = connection;

  $("older").hidden = !state?.before;
  conversation.render(session ?? NO_SESSION, online);

  const crowded = code === CROWDED && !online;
  $("notice").hidden = !(code in REFUSED || crowded || state?.closed);
  setText($("notice-text"), noticeFor(state, code));
  $("take-over").hidden = !(code === 4000 || crowded);

  const usable = session && connection !== "closed" && !state.closed;
  $("input").disabled = $("send").disabled = !usable;
  $("cancel").disabled = !(online && state.turns.size);
}

function noticeFor(state, code) {
  if (state?.closed) return "This session is closed.";
  return REFUSED[code] ?? "Too many connections or requests. Trying again in a while.";
}

function agentStatus(state) {
  if (!state?.turns.size) return state?.agent ?? "";
  return `${state.agent} · ${(state.status ?? "working").replaceAll("_", " ")}`;
}

$("sign-in").onsubmit = (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  $("token").value = "";
  for (const key of errors.keys()) dismiss(key);
  show(new URLSearchParams(location.hash.slice(1)).get("session"));
};
$("create").onsubmit = createSession;
$("composer").onsubmit = send;
$("input").onkeydown = (event) => {
  // While an input method composes, Enter chooses a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
};
$("cancel").onclick = () => session.cancel();
$("take-over").onclick = () => session.takeOver();
$("older").onclick = loadOlder;

addEventListener("hashchange", route);
addEventListener("online", () => session?.hurry());
setInterval(() => conversation.tick(), 1000);

route();
