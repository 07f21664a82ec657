// Route by the fragment of the URL, which never reaches the server: `#/messages/msg_1?search=invoice`.
import { useEffect, useState } from "./preact.js";

export function currentRoute() {
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

export const navigate = (address) => {
  location.hash = address.replace(/^#/, "");
};

/** Change the URL without a new history entry. */
export function replaceRoute(address) {
  history.replaceState(history.state, "", address);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [route, setRoute] = useState(currentRoute);
  useEffect(() => {
    const onChange = () => setRoute(currentRoute());
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  return route;
}
