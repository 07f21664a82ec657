// Icons on a 20 by 20 grid; strokes take the text's colour.
import { html } from "../lib/preact.js";

const PATHS = {
  overview: "M3 11h4l2-6 3 10 2-4h3",
  messages: "M3 5h14v10H3zM3.5 5.5 10 11l6.5-5.5",
  send: "M3 9.5 17 3l-4.5 14-3-6zM9.5 11 17 3",
  domains: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14M3 10h14M10 3c2.5 2 2.5 12 0 14M10 3c-2.500 2-2.500 12 0 14",
  routes: "M4 4v5a3 3 0 0 0 3 3h9M13 9l3 3-3 3M4 16v-2",
  deliveries: "M8 6.500H6a3.500 3.500 0 0 0 0 7h2M12 6.500h2a3.500 3.500 0 0 1 0 7h-2M7 10h6",
  templates: "M4 3h12v14H4zM7 7h6M7 10h6M7 13h3",
  suppressions: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14M5 5l10 10",
  keys: "M12.5 3.500a4 4 0 1 0 0 8 4 4 0 0 0 0-8M9.600 10.400 3.500 16.500M5 15l2 2M8 12l2 2",
  settings:
    "M10 7.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5M10 2.500v2M10 15.500v2M2.500 10h2M15.500 10h2" +
    "M4.700 4.700l1.400 1.400M13.900 13.900l1.400 1.400M4.700 15.300l1.400-1.400M13.900 6.100l1.400-1.400",
  copy: "M7 7h9v9H7zM4 13V4h9",
  check: "M4 10.500 8 14.500 16 5.500",
  cross: "M5 5l10 10M15 5 5 15",
  plus: "M10 4v12M4 10h12",
  search: "M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4M13 13l4 4",
  refresh: "M16 10a6 6 0 1 1-1.800-4.300M16 3v3.500h-3.500",
  eye: "M2.500 10S5 5 10 5s7.500 5 7.500 5-2.500 5-7.500 5-7.500-5-7.500-5M10 8a2 2 0 1 0 0 4 2 2 0 0 0 0-4",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.600L14 6M8.500 9v4M11.500 9v4",
  play: "M6 4.500v11l9-5.500z",
  pause: "M7 5v10M13 5v10",
  menu: "M3 5.500h14M3 10h14M3 14.500h14",
  sun:
    "M10 7a3 3 0 1 0 0 6 3 3 0 0 0 0-6M10 2v2M10 16v2M2 10h2M16 10h2M4.300 4.300l1.500 1.500" +
    "M14.200 14.200l1.500 1.500M4.300 15.700l1.500-1.500M14.200 5.800l1.500-1.500",
  moon: "M16 11.500A6.500 6.500 0 0 1 8.500 4a6.500 6.500 0 1 0 7.500 7.500",
  auto: "M3 4h14v9H3zM7 16h6M10 13v3",
  clip:
    "M14.500 9.500 9 15a3.200 3.200 0 0 1-4.500-4.500l6-6a2.200 2.200 0 0 1 3.100 3.100" +
    "l-5.600 5.600a1 1 0 0 1-1.500-1.500l5-5",
  back: "M12 4l-6 6 6 6",
  next: "M8 4l6 6-6 6",
  down: "M5 8l5 5 5-5",
  warn: "M10 3.500 17.500 16.500h-15zM10 8v4M10 14.200v.1",
  info: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14M10 9v5M10 6.200v.1",
  out: "M8 4H4v12h4M8 10h9M14 7l3 3-3 3",
  in: "M10 3v9M6 8.500l4 4 4-4M4 16h12",
  up: "M10 13V4M6 8l4-4 4 4M4 16h12",
  shield: "M10 2.500 16 5v5c0 4-3 6.500-6 7.500-3-1-6-3.500-6-7.500V5z",
  clock: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14M10 6v4l3 2",
  edit: "M4 16l.8-3.500L13 4.300l2.700 2.700-8.200 8.200z",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  help: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14M8 8a2 2 0 1 1 2.800 1.800c-.6.3-.8.7-.8 1.400M10 13.600v.1",
  server: "M3.500 4h13v5h-13zM3.500 11h13v5h-13zM6 6.500h.1M6 13.500h.1",
};

export const Icon = ({ name, size = 18, class: extra = "" }) => html`
  <svg
    class=${`icon ${extra}`}
    width=${size}
    height=${size}
    viewBox="0 0 20 20"
    fill="none"
    stroke="currentColor"
    stroke-width="1.5"
    stroke-linecap="round"
    stroke-linejoin="round"
    aria-hidden="true"
    focusable="false"
  >
    <path d=${PATHS[name] || PATHS.info} />
  </svg>
`;
