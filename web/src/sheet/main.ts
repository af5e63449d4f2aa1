/** A frame that shows one page of HTML, as it was written. */
import { takeConsole } from "../inside/lines";
import { open, say } from "../inside/port";
import { dress } from "../inside/theme";
import { closeGaps, watch } from "../inside/walls";

const painted = requestAnimationFrame.bind(window);

function put(html: string): void {
  document.open();
  watch();
  document.write(html);
  document.close();
}

closeGaps();
takeConsole();
open((message) => {
  if (message.type === "page") {
    put(message.html);
    dress(message.theme);
    say({ type: "rendered", turn: 0 });
    painted(() => say({ type: "painted", turn: 0 }));
  } else if (message.type === "theme") dress(message.theme);
});
