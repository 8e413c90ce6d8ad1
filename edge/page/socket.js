// One session's socket: it resumes from its cursor, for ever, until it is closed or refused for good.

/** Close codes after which another attempt cannot help, or would fight with another window for ever. */
export const REFUSED = {
  4000: "This session was opened elsewhere.",
  4001: "The token is not valid, or it has expired.",
  4003: "This session belongs to somebody else.",
  4004: "There is no such session.",
};
export const CROWDED = 4029;
export const TOO_LARGE = 1009;

const CONNECT_TIMEOUT = 15_000;
const SILENCE = 60_000; // until `connected` says otherwise

/** How long to wait before attempt `n`. Full jitter: the clients of a restarted server come back spread out. */
export const backoff = (n, base = 500, most = 30_000) => Math.random() * Math.min(most, base * 2 ** n);

/**
 * JSON in which integers keep all their digits: a person must not approve 9007199254740992 where the tool will be
 * called with 9007199254740993. JSON.stringify writes a raw number back as it was.
 */
const parse = (text) =>
  JSON.parse(text, (_, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source)
      ? JSON.rawJSON(context.source)
      : value,
  );

export class SessionSocket {
  #url;
  #onFrame;
  #onState;
  #socket = null;
  #cursor = null;
  #online = false;
  #failures = 0;
  #wanted = null; // the wait that the edge asked for before it closed
  #silence = SILENCE;
  #alarm; // while there is a socket: it is silent; otherwise: time for the next attempt

  /**
   * `onFrame(frame)` returns false if the frame does not fit what came before it. `onState(state, code)` hears
   * connecting, online (all caught up), offline (will try again) and closed (will not, see `REFUSED`).
   */
  constructor(url, onFrame, onState) {
    this.#url = url;
    this.#onFrame = onFrame;
    this.#onState = onState;
  }

  /** `takeover` closes the oldest connection of a full session. Only ever on a person's wish. */
  connect(takeover = false) {
    this.#drop();
    this.#onState("connecting");
    const url = new URL(this.#url);
    if (this.#cursor) url.searchParams.set("after", this.#cursor);
    if (takeover) url.searchParams.set("takeover", "true");
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = ({ data }) => this.#receive(parse(data));
    this.#socket.onclose = ({ code }) => this.#lost(code);
    this.#setAlarm(CONNECT_TIMEOUT, () => this.#lost());
  }

  /** Do not wait out the backoff: the network is back. */
  hurry() {
    if (this.#alarm && !this.#socket) this.connect();
  }

  /** False if the frame could not be sent; true is no proof that it arrived. */
  send(frame) {
    if (!this.#online || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  close() {
    this.#drop();
    this.#onState("closed");
  }

  #receive(frame) {
    if (frame.type === "connected") this.#silence = frame.heartbeat_timeout * 1000 || SILENCE;
    this.#setAlarm(this.#silence, () => this.#lost());
    if (frame.type === "reconnect") this.#wanted = frame.reconnect_after * 1000;
    if (frame.type === "ping") this.#socket.send(JSON.stringify({ type: "pong" }));

    if (!this.#onFrame(frame)) {
      // Once: again from the cursor. If that does not mend it, from a snapshot.
      if (!this.#online) this.#cursor = null;
      return this.#lost();
    }
    // After the frame was processed, and never from message_accepted: events before it may still be on their way.
    if (frame.cursor && frame.type !== "message_accepted") this.#cursor = frame.cursor;
    if (frame.type === "replay_complete") {
      this.#online = true;
      this.#failures = 0;
      this.#onState("online");
    }
  }

  #lost(code) {
    this.#drop();
    if (code in REFUSED) return this.#onState("closed", code);
    const wait = code === CROWDED ? 10_000 + backoff(this.#failures, 10_000, 60_000) : backoff(this.#failures);
    this.#setAlarm(this.#wanted ?? wait, () => this.connect());
    this.#wanted = null;
    this.#failures += 1;
    this.#onState("offline", code);
  }

  /** Let go of the socket at once: a dead network would keep `onclose` waiting. */
  #drop() {
    clearTimeout(this.#alarm);
    this.#alarm = null;
    this.#online = false;
    if (!this.#socket) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #setAlarm(after, action) {
    clearTimeout(this.#alarm);
    this.#alarm = setTimeout(action, after);
  }
}
