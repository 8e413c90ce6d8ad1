// What a session looks like: a fold over its frames. Pure: no DOM, no socket, no clock.
//
// `apply(state, frame)` never changes its arguments, and an item that a frame does not concern stays the same
// object, so whoever renders can compare by identity.

/** Ids kept to recognise an event that comes twice. */
const REMEMBERED = 1000;

/** Where a delta of that kind goes. An unknown kind is ignored. */
const FIELDS = { __proto__: null, text: "content", thinking: "thinking" };

/** The agent statuses of a running turn. */
const WORKING = new Set(["thinking", "streaming", "waiting_tool", "waiting_approval"]);

export const initial = () => ({
  items: [], // in the log's order: {key, kind: "message" | "tool" | "workflow" | "event" | "turn_end", …}
  turns: new Map(), // message_id of a question without turn_end → "waiting" | "running"
  status: null, // the last agent_status of a running turn
  agent: "",
  title: null,
  closed: false,
  before: null, // where older messages begin, for paging back
  seen: new Set(),
});

/** The state after `frame`; null if frames are missing before it: resume from the last cursor. */
export function apply(state, frame) {
  const fold = FOLDS[frame.type];
  if (!fold || state.seen.has(frame.id)) return state;
  const next = fold(state, frame);
  // A delta is recognised by its offset; to remember its id would push out the ids that are needed.
  if (!next || !frame.id || frame.type === "stream_delta") return next;
  return { ...next, seen: remember(next.seen, frame.id) };
}

/** The state with a page of older messages before what it shows. */
export function prepend(state, { messages, before }) {
  const older = messages.map(asItem).filter((item) => !find(state, item.key));
  return { ...state, before, items: [...older, ...state.items] };
}

const FOLDS = {
  __proto__: null,

  connected: (state, { agent }) => ({ ...state, agent }),

  /** Replaces everything: what came before may be of another incarnation of the log. */
  snapshot(state, { last, messages, before, active, running, queue, approvals, workflows }) {
    let next = { ...initial(), agent: state.agent, title: state.title, closed: state.closed, before };
    next.items = messages.map(asItem);
    next.turns = new Map(queue.map((id) => [id, "waiting"]));
    if (running) next = setTurn(next, running, "running");
    if (active) next = put(next, answerKey(active), openAnswer(active));
    for (const approval of approvals) next = FOLDS.tool_approval_request(next, approval);
    for (const workflow of workflows) next = FOLDS.workflow_progress(next, workflow);
    return { ...next, seen: new Set(last ? [last] : []) };
  },

  message(state, frame) {
    const item = asItem(frame);
    const next = put(state, item.key, item);
    return item.role === "user" ? setTurn(next, item.message_id, "waiting") : next;
  },

  turn_start: (state, { reply_to }) => setTurn(state, reply_to, "running"),

  turn_end(state, { reply_to, status, error }) {
    const turns = new Map(state.turns);
    turns.delete(reply_to);
    const next = { ...state, turns, status: null };
    if (status !== "failed" && status !== "cancelled") return next;
    return put(next, `turn_end:${reply_to}`, { kind: "turn_end", status, error });
  },

  stream_start(state, frame) {
    return put(setTurn(state, frame.reply_to, "running"), answerKey(frame), openAnswer(frame));
  },

  stream_delta(state, { message_id, delta, offset, kind = "text" }) {
    const field = FIELDS[kind];
    const key = answerKey({ message_id });
    const answer = find(state, key) ?? openAnswer({ message_id });
    if (!field || !answer.open || offset < answer.had[field]) return state;
    if (offset > answer.had[field]) return null;
    const had = { ...answer.had, [field]: offset + codePoints(delta) };
    return put(state, key, { ...answer, [field]: answer[field] + delta, had });
  },

  stream_reset(state, { message_id }) {
    const { reply_to, agent } = find(state, answerKey({ message_id })) ?? {};
    return put(state, answerKey({ message_id }), openAnswer({ message_id, reply_to, agent }));
  },

  stream_end(state, frame) {
    const { message_id, reply_to, content, finish_reason } = frame;
    const thinking = frame.thinking ?? find(state, answerKey(frame))?.thinking ?? "";
    const whole = { kind: "message", role: "assistant", message_id, reply_to, content, thinking, finish_reason };
    return put(state, answerKey(frame), { ...whole, open: false });
  },

  tool_call: (state, frame) => putTool(state, frame, "called"),

  /** Only a running turn asks, so a turn whose start we never saw is known to run. */
  tool_approval_request(state, frame) {
    return putTool(setTurn(state, frame.reply_to, "running"), frame, "waiting_approval");
  },

  tool_approval: (state, frame) => putTool(state, frame, frame.approved ? "approved" : "rejected"),

  tool_progress: (state, frame) => putTool(state, frame, "running"),

  tool_result: (state, frame) => putTool(state, frame, frame.status),

  agent_status(state, { status, reply_to }) {
    const next = { ...state, status };
    return reply_to && WORKING.has(status) ? setTurn(next, reply_to, "running") : next;
  },

  workflow_progress(state, { workflow_id, step, progress, completed, total }) {
    const item = { kind: "workflow", workflow_id, step, progress, completed, total };
    return put(state, `workflow:${workflow_id}`, item);
  },

  external_event: putEvent,
  agent_update: putEvent,
  memory_update: putEvent,

  session_updated: (state, frame) => ({
    ...state,
    title: frame.title ?? state.title,
    closed: ["closed", "deleted"].includes(frame.state),
  }),
};

const answerKey = ({ message_id }) => `message:${message_id}`;

/** The item of a message that is complete. */
function asItem(frame) {
  const { message_id, role = "user", content, thinking = "", user_id, client_message_id, finish_reason } = frame;
  const item = { message_id, role, content, thinking, user_id, client_message_id, finish_reason };
  return { key: answerKey(frame), kind: "message", ...item, open: false };
}

/** The item of an answer that streams; `had` counts what was received in characters, as `offset` does. */
function openAnswer({ message_id, reply_to, agent, content = "", thinking = "" }) {
  const had = { content: codePoints(content), thinking: codePoints(thinking) };
  return { kind: "message", role: "assistant", message_id, reply_to, agent, content, thinking, had, open: true };
}

/** The card of a tool call; a frame that does not name a field leaves it as it was. */
function putTool(state, frame, status) {
  const { type, id, cursor, timestamp, session_id, ...fields } = frame;
  return put(state, `tool:${frame.tool_call_id}`, { ...fields, kind: "tool", status });
}

function putEvent(state, frame) {
  return put(state, `event:${frame.id}`, { kind: "event", frame });
}

const find = (state, key) => state.items.findLast((item) => item.key === key);

/** The state with `fields` set in the item `key`, which comes last if it is new. */
function put(state, key, fields) {
  const at = state.items.findLastIndex((item) => item.key === key);
  const item = { ...state.items[at], ...fields, key };
  return { ...state, items: at < 0 ? [...state.items, item] : state.items.with(at, item) };
}

const setTurn = (state, id, turn) => ({ ...state, turns: new Map(state.turns).set(id, turn) });

function remember(seen, id) {
  const next = new Set(seen).add(id);
  if (next.size > REMEMBERED) next.delete(next.values().next().value);
  return next;
}

/** The length of `text` in characters. `text.length` counts UTF-16 units: 2 for an emoji. */
function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
