// An open session: its socket, its state and what is on its way. Everything of it ends with `close`.

import { apply, initial, prepend } from "./fold.js";
import { Outbox } from "./outbox.js";
import { SessionSocket, TOO_LARGE } from "./socket.js";

export class Session {
  state = initial();
  connection = { state: "connecting", code: undefined };
  deciding = new Set(); // tool_call_ids whose decision is on its way
  #socket;
  #outbox;
  #on;

  /**
   * `on.change()`: something to show is new; `on.online()`: caught up; `on.error(error)`: to be told to the person;
   * `on.accepted(requestId)`: an error told before is mended; `on.refused(content)`: this message will not be sent.
   */
  constructor(id, token, on) {
    this.id = id;
    this.#on = on;
    // A browser cannot set a header on a WebSocket. Where addresses are logged, use ?ticket= from POST /tickets.
    const url = new URL(`/api/v1/sessions/${encodeURIComponent(id)}/ws`, location.href.replace(/^http/, "ws"));
    url.searchParams.set("token", token);
    url.hash = ""; // a WebSocket's address may not have one
    this.#socket = new SessionSocket(url, (frame) => this.#receive(frame), (...now) => this.#connected(...now));
    this.#outbox = new Outbox(id, (frame) => this.#socket.send(frame), on.refused);
    this.#socket.connect();
  }

  /** Messages whose events have not come yet. */
  get outgoing() {
    return this.#outbox.entries;
  }

  say(content) {
    this.#outbox.add(content);
    this.#on.change();
  }

  /** Cancel the running turn. */
  cancel() {
    this.#socket.send({ type: "cancel" });
  }

  /** The card changes when the decision comes back as an event: it may be another person's. */
  decide(tool_call_id, approved) {
    if (!this.#socket.send({ type: "tool_approval", tool_call_id, approved, request_id: tool_call_id })) return;
    this.deciding = new Set(this.deciding).add(tool_call_id);
    this.#on.change();
  }

  addOlder(page) {
    this.state = prepend(this.state, page);
    this.#on.change();
  }

  takeOver() {
    this.#socket.connect(true);
  }

  hurry() {
    this.#socket.hurry();
  }

  close() {
    this.#on = { __proto__: null, change() {}, online() {}, error() {}, accepted() {}, refused() {} };
    this.#outbox.pause();
    this.#socket.close();
  }

  #receive(frame) {
    const next = apply(this.state, frame);
    if (next === null) return false;
    this.state = next;
    this.#outbox.receive(frame);
    if (frame.type === "message_accepted") this.#on.accepted(frame.request_id);
    if (frame.type === "error") {
      this.deciding = new Set([...this.deciding].filter((id) => id !== frame.request_id));
      this.#on.error(frame);
    }
    this.#on.change();
    return true;
  }

  #connected(state, code) {
    this.connection = { state, code };
    if (state === "online") {
      this.#outbox.flush();
      this.#on.online();
    } else {
      if (code === TOO_LARGE) this.#outbox.refuse();
      this.#outbox.pause();
      this.deciding = new Set(); // the answers are lost; who decides again is told what came of it
    }
    this.#on.change();
  }
}
