// Screens by the part of the address behind `#`, which never reaches the server: `#/messages/msg_1?search=invoice`.
import { useState, useEffect } from "./lib.js";

export function read() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path
    .split("/")
    .filter(Boolean)
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
  return { parts, params: Object.fromEntries(new URLSearchParams(search || "")) };
}

export const go = (address) => {
  location.hash = address.replace(/^#/, "");
};

/** Another address for the same place, without a step back to the old one. */
export function replace(address) {
  history.replaceState(history.state, "", address);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [route, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
