// Restore scroll position and focus when the location changes.
import { useLayoutEffect, useRef } from "../lib/preact.js";

/** Scroll positions of history entries, by the name in their state. */
const scrollPositions = new Map();

let lastStep = 0;

/**
 * Scroll a new location to its top and focus its heading; return to the old position on a location gone back to.
 * `locationKey` changes with what the page shows, not with its filters.
 */
export function useScrollAndFocus(main, locationKey) {
  const firstRender = useRef(true);
  useLayoutEffect(() => {
    let step = history.state?.step;
    const revisited = step !== undefined;
    if (!revisited) {
      step = `${performance.timeOrigin} ${++lastStep}`;
      history.replaceState({ step }, "");
    }
    const element = main.current;
    if (!firstRender.current) {
      element.scrollTop = 0;
      if (!document.querySelector("dialog[open]"))
        (element.querySelector("h1") || element).focus({ preventScroll: true });
      // Cached data is rendered by the next frame.
      if (revisited) requestAnimationFrame(() => (element.scrollTop = scrollPositions.get(step) || 0));
    }
    firstRender.current = false;
    const saveScroll = () => scrollPositions.set(step, element.scrollTop);
    element.addEventListener("scroll", saveScroll, { passive: true });
    return () => element.removeEventListener("scroll", saveScroll);
  }, [locationKey]);
}
