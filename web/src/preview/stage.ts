/** Where strangers' code is shown: a sandboxed frame of an opaque origin, a fresh one for each program.
 *
 * A spare frame is kept ready once code is edited, and takes the stage when what it shows is there: nothing flickers,
 * and no timer or listener of the program before is left. A frame that does not answer, floods the page or goes
 * elsewhere is taken away. All that it says is checked here and shown as text.
 */
import { LONGEST, READY, type Failure, type FromFrame, type Line, type Theme, type ToFrame } from "../shared/protocol";

export type Ending = "hung" | "flood" | "left" | "dead";

export type StageEvent =
  | { type: "rendered"; turn: number }
  | { type: "painted"; turn: number }
  | { type: "console"; lines: Line[]; dropped: number }
  | { type: "error"; failure: Failure }
  | { type: "ended"; why: Ending };

type Show = Extract<ToFrame, { type: "render" | "page" }>;

/** Milliseconds between two looks at the frame. */
const EVERY = 1_000;
/** Looks until it must have answered, and until it must have begun: while this page stands still, it need not. */
const PATIENCE = 4;
const START = 15;
/** Messages a second beyond which a frame is not listened to any more. */
const FLOOD = 500;
/** Milliseconds until a program that has shown nothing takes the stage all the same. */
const CURTAIN = 300;

class Actor {
  readonly element = document.createElement("iframe");
  port: MessagePort | null = null;
  asked: number | null = null;
  /** Looks since it was asked, or, before it has begun, since it was made. */
  looks = 0;
  heard = 0;
  loads = 0;
  private held: ToFrame[] = [];

  constructor(label: string) {
    // Forms are let in so that their events are: what they send is refused by the frame's policy.
    this.element.setAttribute("sandbox", "allow-scripts allow-forms");
    this.element.referrerPolicy = "no-referrer";
    this.element.title = label;
    this.element.src = "frame.html";
  }

  send(message: ToFrame): void {
    if (this.port) this.port.postMessage(message);
    else this.held.push(message);
  }

  connect(port: MessagePort, listen: (data: unknown) => void): void {
    this.port = port;
    port.onmessage = ({ data }): void => listen(data);
    for (const message of this.held) port.postMessage(message);
    this.held = [];
  }

  leave(): void {
    this.port?.close();
    this.element.remove();
  }
}

export class Stage {
  private current: Actor | null = null;
  private coming: Actor | null = null;
  private spare: Actor | null = null;
  private pings = 0;
  private readonly timer: number;

  constructor(
    private readonly host: HTMLElement,
    private readonly label: string,
    private readonly tell: (event: StageEvent) => void,
  ) {
    addEventListener("message", this.ready);
    this.timer = window.setInterval(this.look, EVERY);
  }

  /** Show a program from its beginning. `again`: more of them will follow, so keep a frame ready. */
  show(message: Show, again: boolean): void {
    this.coming?.leave();
    const actor = this.spare ?? this.enter();
    this.spare = null;
    this.coming = actor;
    actor.send(message);
    if (!this.current) this.rise(actor);
    else window.setTimeout(() => this.rise(actor), CURTAIN);
    if (again) this.spare = this.enter();
  }

  send(message: ToFrame): void {
    (this.coming ?? this.current)?.send(message);
  }

  dress(theme: Theme): void {
    for (const actor of [this.current, this.coming]) actor?.send({ type: "theme", theme });
  }

  /** Take everything away; the stage may be used again by `show`. */
  clear(): void {
    for (const actor of [this.current, this.coming, this.spare]) actor?.leave();
    this.current = this.coming = this.spare = null;
  }

  close(): void {
    this.clear();
    removeEventListener("message", this.ready);
    window.clearInterval(this.timer);
  }

  private enter(): Actor {
    const actor = new Actor(this.label);
    actor.element.className = "waiting";
    actor.element.setAttribute("aria-hidden", "true");
    actor.element.tabIndex = -1;
    actor.element.addEventListener("load", () => {
      actor.loads += 1;
      if (actor.loads > 1) this.end(actor, "left");
    });
    this.host.append(actor.element);
    return actor;
  }

  /** `actor` takes the stage, unless another has come since. */
  private rise(actor: Actor): void {
    if (this.coming !== actor) return;
    this.current?.leave();
    this.current = actor;
    this.coming = null;
    actor.element.className = "";
    actor.element.removeAttribute("aria-hidden");
    actor.element.removeAttribute("tabindex");
  }

  private readonly ready = (event: MessageEvent): void => {
    const actor = [this.current, this.coming, this.spare].find((one) => one && one.element.contentWindow === event.source);
    if (!actor) return;
    const port = event.ports[0];
    if (actor.port === null && event.data === READY && port) actor.connect(port, (data) => this.hear(actor, data));
    else this.count(actor);
  };

  private count(actor: Actor): boolean {
    actor.heard += 1;
    if (actor.heard <= FLOOD) return true;
    this.end(actor, "flood");
    return false;
  }

  private hear(actor: Actor, data: unknown): void {
    const message = data as FromFrame;
    if (!this.count(actor) || typeof data !== "object" || data === null || actor === this.spare) return;
    if (message.type === "pong") {
      if (actor.asked === message.n) actor.asked = null;
    } else if (message.type === "rendered" || message.type === "painted") {
      this.rise(actor);
      this.tell({ type: message.type, turn: Number(message.turn) });
    } else if (message.type === "console" && Array.isArray(message.lines)) {
      const lines = message.lines.slice(0, 200).map(({ level, text }) => ({ level, text: cut(text) }));
      this.tell({ type: "console", lines, dropped: Number(message.dropped) || 0 });
    } else if (message.type === "error") {
      const { kind, message: said, stack } = message;
      this.tell({ type: "error", failure: { kind, message: cut(said), stack: cut(stack) } });
    }
  }

  private readonly look = (): void => {
    // A page that nobody sees gets few turns, and its frames no more.
    if (document.hidden) return;
    for (const actor of [this.current, this.coming]) {
      if (!actor) continue;
      actor.heard = 0;
      actor.looks += 1;
      if (!actor.port) {
        if (actor.looks > START) this.end(actor, "dead");
      } else if (actor.asked === null) {
        actor.asked = this.pings += 1;
        actor.looks = 0;
        actor.send({ type: "ping", n: this.pings });
      } else if (actor.looks >= PATIENCE) this.end(actor, "hung");
    }
  };

  private end(actor: Actor, why: Ending): void {
    if (actor === this.spare) {
      actor.leave();
      this.spare = null;
      return;
    }
    this.clear(); // the spare, too: it may share the process that hangs
    this.tell({ type: "ended", why });
  }
}

const cut = (text: unknown): string => String(text ?? "").slice(0, LONGEST);
