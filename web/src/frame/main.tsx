/** A frame that shows what a stranger wrote, a React component or a page of HTML. It knows nothing and reaches nobody. */
import { takeConsole } from "../inside/lines";
import { open } from "../inside/port";
import { dress } from "../inside/theme";
import { closeGaps, watch } from "../inside/walls";
import { begin, draw } from "./component";
import { put } from "./page";

/** A page that was not made here says itself how it looks. */
let own = false;

closeGaps();
takeConsole();
watch();
open((message) => {
  if (message.type === "props") draw(message.turn, message.given);
  else if (message.type === "theme") {
    if (!own) dress(message.theme);
  }
  else if (message.type === "render") {
    dress(message.theme);
    begin(message.program);
  } else if (message.type === "page") {
    own = message.page.own;
    put(message.page);
    if (!own) dress(message.theme);
  }
});
