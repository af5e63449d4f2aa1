/** What the browser's own walls leave open, closed; and what they held back, told. The walls are the frame's policy. */
import { print } from "./lines";
import { fail, say } from "./port";

/** Talks that no policy stops everywhere. A nested frame cannot bring them back: it has another opaque origin. */
const TAKEN = ["RTCPeerConnection", "webkitRTCPeerConnection", "RTCDataChannel", "WebTransport", "WebSocketStream"];

export function closeGaps(): void {
  for (const name of TAKEN) {
    Reflect.deleteProperty(window, name);
  }
}

/** Listen for what goes wrong. */
export function watch(): void {
  addEventListener("error", (event) => fail("run", event.error ?? event.message));
  addEventListener("unhandledrejection", (event) => fail("run", event.reason));
  addEventListener("securitypolicyviolation", (event) => {
    // Handlers in attributes are run in another way, which needs no policy that lets them in.
    if (event.effectiveDirective === "script-src-attr") return;
    const where = event.blockedURI ? ` (${event.blockedURI.slice(0, 200)})` : "";
    const message = `A preview has no network: ${event.effectiveDirective} refused this${where}.`;
    say({ type: "error", kind: "refused", message, stack: "" });
  });
  addEventListener("click", stay, true);
  addEventListener("submit", stayed);
}

/** A link to elsewhere would only be refused, and leave an empty frame. */
function stay(event: MouseEvent): void {
  const link = event.composedPath().find((node): node is HTMLAnchorElement => node instanceof HTMLAnchorElement);
  const target = link?.getAttribute("href");
  if (target === undefined || target === null || target.startsWith("#")) return;
  event.preventDefault();
  print("info", `A link leads nowhere in a preview: ${target}`);
}

/** The same of a form that nobody handles. */
function stayed(event: SubmitEvent): void {
  if (event.defaultPrevented) return;
  event.preventDefault();
  print("info", "A form was sent, and nothing handles that: in a preview it leads nowhere.");
}
