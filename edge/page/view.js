// The conversation as DOM: one element an item, made once, changed where its item changed.
//
// Whatever comes from the wire goes in as text, never as markup.

/** An element; attributes of false, null or undefined are left out, children may be strings. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  setAttributes(node, attributes);
  node.append(...children);
  return node;
}

/** Shows a session's items in `root`; `decide(tool_call_id, approved)` is called by the buttons of a card. */
export class Conversation {
  #root;
  #decide;
  #shown = new Map(); // key → {node, update, item, mark}
  #following = true; // the end is in view, and stays so until the reader scrolls away from it

  constructor(root, decide) {
    this.#root = root;
    this.#decide = decide;
    root.onscroll = () => (this.#following = root.scrollHeight - root.scrollTop - root.clientHeight < 40);
    new ResizeObserver(() => this.#follow()).observe(root);
  }

  /** `online`: decisions can be sent. */
  render({ state, outgoing, deciding }, online) {
    const keys = new Set();
    let place = this.#root.firstElementChild;
    for (const [item, mark] of marked(state, outgoing, deciding, online)) {
      keys.add(item.key);
      const { node } = this.#show(item, mark);
      if (node === place) place = place.nextElementSibling;
      else this.#root.insertBefore(node, place);
    }
    for (const [key, { node }] of this.#shown) {
      if (keys.has(key)) continue;
      node.remove();
      this.#shown.delete(key);
    }
    this.#follow();
  }

  /** Count down the time left for approvals. */
  tick() {
    for (const node of this.#root.querySelectorAll("time[data-expires]")) setText(node, timeLeft(node.dataset.expires));
  }

  #follow() {
    if (this.#following) this.#root.scrollTop = this.#root.scrollHeight;
  }

  #show(item, mark) {
    let shown = this.#shown.get(item.key);
    if (!shown) {
      shown = BUILD[item.kind](item, this.#decide);
      this.#shown.set(item.key, shown);
    }
    if (shown.item !== item || shown.mark !== mark) shown.update(item, mark);
    return Object.assign(shown, { item, mark });
  }
}

/** The items to show, each with what concerns it but is not part of it. */
function* marked(state, outgoing, deciding, online) {
  for (const item of state.items) {
    if (item.kind === "message") {
      if (item.role === "assistant" && !item.open && !item.content && !item.thinking) continue; // only called a tool
      yield [item, state.turns.get(item.message_id) === "waiting" ? "waiting" : ""];
    } else if (item.kind === "tool") {
      const asked = item.status === "waiting_approval" && state.turns.has(item.reply_to);
      yield [item, !asked ? "" : online && !deciding.has(item.tool_call_id) ? "ask" : "asked"];
    } else {
      yield [item, ""];
    }
  }
  for (const entry of outgoing) yield [asItem(entry), entry.accepted ? "sent" : "sending"];
}

/** The item of an outgoing message; the same object for the same entry, so that it is drawn once. */
const asItem = memoize(({ client_message_id, content }) => ({
  key: `outgoing:${client_message_id}`, kind: "message", role: "user", content,
}));

function memoize(make) {
  const made = new WeakMap();
  return (source) => made.get(source) ?? made.set(source, make(source)).get(source);
}

const BUILD = {
  message({ role, message_id }) {
    const thought = element("pre", { class: "thought", dir: "auto" });
    const thinking = element("details", { class: "thinking" }, element("summary", {}, "Thinking"), thought);
    const content = element("div", { class: "content", dir: "auto" });
    const note = element("small", { class: "note" });
    const hooks = { "data-testid": "message", "data-role": role, "data-message-id": message_id };
    const names = { class: `message ${role}`, "aria-label": NAMES[role] };
    const node = element("article", { ...names, ...hooks }, thinking, content, note);
    const update = (item, mark) => {
      setAttributes(node, { "aria-busy": item.open ? "true" : "false", "data-state": mark });
      setText(thought, item.thinking ?? "");
      thinking.hidden = !item.thinking;
      setText(content, item.content);
      setText(note, FINISHED[item.finish_reason] ?? PENDING[mark] ?? "");
    };
    return { node, update };
  },

  tool({ tool_call_id }, decide) {
    const name = element("code", { class: "tool-name" });
    const status = element("span", { class: "badge" });
    const shownArguments = element("pre");
    const progress = element("progress", { "aria-label": "Progress of the tool" });
    const note = element("small", { class: "note" });
    const left = element("time");
    const approve = element("button", { type: "button", "data-testid": "approve" }, "Approve");
    const reject = element("button", { type: "button", class: "quiet", "data-testid": "reject" }, "Reject");
    const approval = element("div", { class: "row" }, approve, reject, left);
    const result = element("pre");
    const outcome = element("details", {}, element("summary", {}, "Result"), result);
    const head = element("header", {}, name, status);
    const hooks = { "data-testid": "tool", "data-tool-call-id": tool_call_id };
    const node = element("section", { class: "card", ...hooks }, head, shownArguments, progress, note, outcome);
    approve.onclick = () => decide(tool_call_id, true);
    reject.onclick = () => decide(tool_call_id, false);
    const update = (item, mark) => {
      node.dataset.status = item.status;
      node.setAttribute("aria-label", `Tool ${visible(item.tool ?? "")}, ${words(item.status)}`);
      setText(name, visible(item.tool ?? "tool"));
      setText(status, words(item.status));
      setText(shownArguments, item.arguments ? pretty(item.arguments) : "");
      shownArguments.hidden = !item.arguments;
      progress.hidden = item.status !== "running";
      setProgress(progress, item.progress, item.total ?? 1);
      setText(note, visible(item.error ?? remark(item)));
      setText(result, item.result == null ? "" : pretty(item.result));
      outcome.hidden = item.result == null;
      if (!mark) approval.remove();
      else if (!approval.parentNode) node.append(approval);
      approve.disabled = reject.disabled = mark !== "ask";
      setAttributes(left, { "data-expires": mark && item.expires_at, datetime: item.expires_at });
      setText(left, mark ? timeLeft(item.expires_at) : "");
    };
    return { node, update };
  },

  workflow({ workflow_id }) {
    const step = element("span");
    const share = element("span", { class: "badge" });
    const bar = element("progress", { "aria-label": `Progress of ${workflow_id}` });
    const head = element("header", {}, step, share);
    const node = element("section", { class: "card", "data-testid": "workflow" }, head, bar);
    const update = (item) => {
      node.dataset.progress = item.progress;
      const counts = item.total == null ? "" : ` (${item.completed ?? 0} of ${item.total})`;
      setText(step, `${workflow_id}: ${item.step}${counts}`);
      setText(share, `${Math.round(item.progress * 100)} %`);
      setProgress(bar, item.progress, 1);
    };
    return { node, update };
  },

  event() {
    const node = element("p", { class: "line", "data-testid": "event", dir: "auto" });
    const update = ({ frame }) => {
      node.dataset.type = frame.type;
      setText(node, visible(LINES[frame.type](frame)));
    };
    return { node, update };
  },

  turn_end({ status }) {
    const hooks = { "data-testid": "turn-end", "data-status": status };
    const node = element("p", { class: `line ${status}`, dir: "auto", ...hooks });
    const update = ({ error }) =>
      setText(node, status === "failed" ? `Failed: ${visible(error?.error ?? "")}` : "Cancelled");
    return { node, update };
  },
};

const NAMES = { user: "You", assistant: "Assistant" };

const PENDING = { __proto__: null, sending: "sending…", sent: "sent", waiting: "waiting for its turn" };

const FINISHED = { __proto__: null, length: "cut off: too long", cancelled: "cancelled", error: "broken off" };

const LINES = {
  external_event: ({ source, event_type, event_data }) =>
    `${event_type} from ${source}${event_data == null ? "" : `: ${JSON.stringify(event_data)}`}`,
  agent_update: ({ agent_id, status }) => `Agent ${agent_id}: ${status}`,
  memory_update: ({ memory_id, agent_id, operation }) => `Memory ${memory_id} of agent ${agent_id}: ${operation}`,
};

const words = (status) => status.replaceAll("_", " ");

function remark({ status, message, approved, decided_by, reason }) {
  if (status === "running" && message) return message;
  if (!decided_by) return "";
  return `${approved ? "approved" : "rejected"} by ${decided_by}${reason ? `: ${reason}` : ""}`;
}

/** JSON for a person who decides on it. */
const pretty = (value) => visible(typeof value === "string" ? value : JSON.stringify(value, null, 2));

/**
 * `text` with every character escaped that would not show: controls, bidi overrides, zero-width and other
 * ignorable characters, strange spaces. What is approved must be what is seen.
 */
export const visible = (text) => String(text).replace(UNSEEN, escaped);

const UNSEEN = /(?![ \n])[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/gu;

const escaped = (character) =>
  character.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

/** The server's clock decides; this one only tells about how long there is. */
function timeLeft(expiresAt) {
  const seconds = Math.max(0, Math.round((Date.parse(expiresAt) - Date.now()) / 1000));
  if (!seconds) return "time is up";
  const minutes = Math.floor(seconds / 60);
  return minutes >= 60
    ? `${Math.floor(minutes / 60)} h ${minutes % 60} min left`
    : `${minutes}:${String(seconds % 60).padStart(2, "0")} left`;
}

/** Text that grew is appended to, so that a selection in it and a screen reader's place stay. */
export function setText(node, text) {
  const shown = node.textContent;
  if (shown === text) return;
  if (shown && text.startsWith(shown)) node.firstChild.appendData(text.slice(shown.length));
  else node.textContent = text;
}

function setProgress(bar, value, most) {
  bar.max = most || 1;
  if (value == null) bar.removeAttribute("value");
  else bar.value = value;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null || value === "") node.removeAttribute(name);
    else node.setAttribute(name, value);
  }
}
