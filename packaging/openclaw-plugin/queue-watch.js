// When the gateway's own queue is looked at, and when what is seen there is told.
//
// A look is cheap but synchronous, so it is made only where something may have changed: a while
// after the gateway's start, after a turn and after a message that did not get through, and then
// again as long as something waits. With nothing to wait for there is no timer.

const AFTER_START_MS = 20_000; // past the gateway's own first pass over its queue
const AFTER_EVENT_MS = 15_000; // past its first retry
const WHILE_PENDING_MS = 60_000;
const BETWEEN_LOOKS_MS = 10_000;
const LOOK_AGAIN_MS_MAX = 3_600_000;

export class QueueWatch {
  #read; // () => what readQueue returns
  #tell; // ({ entries, total }) => void
  #told = null; // as JSON, what was last told
  #timer = null;
  #lookedAt = -Infinity;
  // When a look is due. Of the events that ask for one the first and the last are kept: those
  // between them have theirs when the last has.
  #first = Infinity;
  #last = -Infinity;
  #again = Infinity; // because something waits

  constructor({ read, tell }) {
    this.#read = read;
    this.#tell = tell;
  }

  /** The gateway has started. */
  started() {
    this.#ask(AFTER_START_MS);
  }

  /** Something may have come into the queue. */
  changed() {
    this.#ask(AFTER_EVENT_MS);
  }

  /** Another listener: whatever was told, this one does not know it. */
  forget() {
    this.#told = null;
  }

  /**
   * For whoever asks: a look at once. `entries` is null where there is none to be had. What is new
   * is told first, as ever: this look may be the one that ends the minute's.
   */
  answer() {
    const found = this.#look();
    this.#report(found);
    this.#arm();
    const { entries = null, total, error } = found ?? {};
    return { entries, total, error };
  }

  #ask(ms) {
    const due = Date.now() + ms;
    this.#first = Math.min(this.#first, due);
    this.#last = Math.max(this.#last, due);
    this.#arm();
  }

  #arm() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const due = Math.min(this.#first, this.#again);
    if (due === Infinity) return;
    // A clock that was set back must not make this a moment that the timer cannot hold.
    const wait = Math.max(due, this.#lookedAt + BETWEEN_LOOKS_MS) - Date.now();
    const ms = Math.min(wait, LOOK_AGAIN_MS_MAX);
    this.#timer = setTimeout(() => this.#due(), ms);
    this.#timer.unref?.();
  }

  // Nobody is above a timer: an exception here would end the gateway.
  #due() {
    try {
      this.#report(this.#look());
    } catch {
      this.#again = Infinity;
    }
    this.#arm();
  }

  #look() {
    const now = Date.now();
    this.#lookedAt = now;
    if (this.#first <= now) this.#first = this.#last > now ? this.#last : Infinity;
    const found = this.#read();
    // A look that failed says nothing new: what waited before it may wait still.
    const waits = found?.error === undefined
      ? found?.entries.some(({ status }) => status === "pending")
      : this.#again !== Infinity;
    this.#again = waits ? now + WHILE_PENDING_MS : Infinity;
    return found;
  }

  #report(found) {
    if (!Array.isArray(found?.entries)) return;
    const json = JSON.stringify(found);
    if (json === this.#told) return;
    this.#told = json;
    this.#tell({ entries: found.entries, total: found.total });
  }
}
