/** The frame's end of the talk with its page, made before any stranger's code runs and out of its reach. */
import { LONGEST, READY, type ErrorKind, type FromFrame, type ToFrame } from "../shared/protocol";

const channel = new MessageChannel();
const port = channel.port1;
const post = port.postMessage.bind(port);

export function say(message: FromFrame): void {
  post(message);
}

export function fail(kind: ErrorKind, error: unknown): void {
  const { message, stack } = described(error);
  say({ type: "error", kind, message: message.slice(0, LONGEST), stack: stack.slice(0, LONGEST) });
}

function described(error: unknown): { message: string; stack: string } {
  if (error instanceof Error) return { message: `${error.name}: ${error.message}`, stack: cleaned(error.stack ?? "") };
  try {
    return { message: typeof error === "string" ? error : `${String(error)} was thrown`, stack: "" };
  } catch {
    return { message: "something was thrown that cannot be shown", stack: "" };
  }
}

/** The lines of a stack that are the stranger's own: those of React and of this frame say nothing to anybody. */
function cleaned(stack: string): string {
  const lines = stack.split("\n").filter((line) => /\bat /.test(line) && !line.includes("frame.html"));
  return lines.slice(0, 20).join("\n");
}

/** Begin to listen, and tell the page that it can talk. */
export function open(answer: (message: ToFrame) => void): void {
  port.onmessage = ({ data }: MessageEvent<ToFrame>): void => {
    if (data.type === "ping") say({ type: "pong", n: data.n });
    else answer(data);
  };
  // The frame's origin is opaque and cannot know the page's: nothing secret is said here.
  parent.postMessage(READY, "*", [channel.port2]);
}
