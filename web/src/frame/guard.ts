/** Ends what would loop for ever: the code of one task may loop for two seconds, then its loops throw. */

const LONGEST = 2_000;
const EVERY = 64;

const now = performance.now.bind(performance);
const task = new MessageChannel();
const next = task.port2.postMessage.bind(task.port2);

let rounds = 0;
let begun = 0;
let over = false;

// The next task: reached by whoever waits for something, never by whoever loops.
task.port1.onmessage = (): void => {
  begun = 0;
  over = false;
};

export function guard(): void {
  rounds += 1;
  if (begun === 0) {
    begun = now();
    next(null);
  } else if (over || (rounds % EVERY === 0 && now() - begun > LONGEST)) {
    over = true; // for all loops around this one, too, also where it catches what is thrown
    throw new Error(`A loop was stopped after ${LONGEST / 1000} seconds: it seems to be endless.`);
  }
}
