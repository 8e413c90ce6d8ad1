// Messages on their way: kept across reloads, sent until the server has stored them.
//
// Every attempt carries the same client_message_id, so the server makes one message of them however often it is
// sent. One at a time, so that a message which has to be tried again keeps its place.

import { backoff } from "./socket.js";

const ANSWER_WITHIN = 15_000;

export class Outbox {
  /** {client_message_id, content, at, accepted}, oldest first; accepted: stored, its event is still to come. */
  entries = [];
  #prefix;
  #send;
  #onRefused;
  #sent = null; // the entry whose answer is awaited
  #failures = 0;
  #alarm;

  /** `send(frame)` returns false while offline; `onRefused(content)` hears what will never be accepted. */
  constructor(sessionId, send, onRefused) {
    this.#prefix = `millrace.outbox.${sessionId}.`; // an id has no dots, so no prefix begins another
    this.#send = send;
    this.#onRefused = onRefused;
    this.entries = Object.keys(localStorage)
      .filter((key) => key.startsWith(this.#prefix))
      .map((key) => JSON.parse(localStorage.getItem(key)))
      .sort((a, b) => a.at - b.at);
  }

  add(content) {
    const at = Math.max(Date.now(), (this.entries.at(-1)?.at ?? 0) + 1);
    const entry = { client_message_id: randomId(), content, at };
    try {
      localStorage.setItem(this.#prefix + entry.client_message_id, JSON.stringify(entry));
    } catch {
      // Full or forbidden: the message survives a reconnect, not a reload.
    }
    this.entries = [...this.entries, entry];
    if (!this.#sent) this.flush();
  }

  /** What a frame means for the messages on their way. */
  receive(frame) {
    switch (frame.type) {
      case "message_accepted":
        return this.#accepted(frame.client_message_id);
      case "error":
        if (this.#sent && frame.request_id === this.#sent.client_message_id) this.#failed(frame);
        return;
      case "message":
        return this.#arrived(frame.client_message_id);
      case "snapshot": // whatever was accepted before it is in it, or too old to be shown
        for (const entry of this.entries.filter(({ accepted }) => accepted)) this.#arrived(entry.client_message_id);
        for (const message of frame.messages) this.#arrived(message.client_message_id);
    }
  }

  /** Send the oldest message that is not accepted, again if need be. Call it whenever the socket is caught up. */
  flush() {
    clearTimeout(this.#alarm);
    const entry = this.entries.find(({ accepted }) => !accepted);
    const { client_message_id, content } = entry ?? {};
    const frame = { type: "message", content, client_message_id, request_id: client_message_id };
    this.#sent = entry && this.#send(frame) ? entry : null;
    if (this.#sent) this.#alarm = setTimeout(() => this.flush(), ANSWER_WITHIN);
  }

  /** The message on its way cannot be accepted: give it back instead of trying for ever. */
  refuse() {
    if (!this.#sent) return;
    const { client_message_id, content } = this.#sent;
    this.#arrived(client_message_id);
    this.#onRefused(content);
  }

  /** The connection is gone, and with it the answer to what was sent. */
  pause() {
    clearTimeout(this.#alarm);
    this.#sent = null;
  }

  #accepted(id) {
    localStorage.removeItem(this.#prefix + id);
    this.entries = this.entries.map((entry) => (entry.client_message_id === id ? { ...entry, accepted: true } : entry));
    this.#next(id);
  }

  #arrived(id) {
    localStorage.removeItem(this.#prefix + id);
    this.entries = this.entries.filter((entry) => entry.client_message_id !== id);
    this.#next(id);
  }

  #next(id) {
    if (this.#sent?.client_message_id !== id) return;
    this.#failures = 0;
    this.flush();
  }

  #failed({ retryable, details }) {
    if (!retryable) return this.refuse();
    const wait = (details?.retry_after ?? 0) * 1000 + backoff(this.#failures, 1000);
    this.#failures += 1;
    clearTimeout(this.#alarm);
    this.#alarm = setTimeout(() => this.flush(), wait);
  }
}

/** 128 random bits. Not crypto.randomUUID: browsers offer it to https and localhost only. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
