/** What a loop calls in each round; the frame gives it to every module. */
export const GUARD = "__corral_guard";
