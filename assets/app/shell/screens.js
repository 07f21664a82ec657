// The list of screens. The first one is fetched while the session is checked, others when they are shown or when the
// pointer or the focus is on their link.

/** Title, module and shortcut key of each screen. */
export const SCREENS = {
  overview: ["Overview", () => import("../screens/overview/overview.js"), "o"],
  messages: ["Messages", () => import("../screens/messages/messages.js"), "m"],
  send: ["Send", () => import("../screens/send/send.js"), "s"],
  domains: ["Domains", () => import("../screens/domains/domains.js"), "d"],
  routes: ["Routes", () => import("../screens/routes/routes.js"), "r"],
  deliveries: ["Deliveries", () => import("../screens/deliveries/deliveries.js"), "w"],
  templates: ["Templates", () => import("../screens/templates.js"), "t"],
  suppressions: ["Suppressions", () => import("../screens/suppressions.js"), "x"],
  keys: ["Keys", () => import("../screens/keys.js"), "k"],
  settings: ["Settings", () => import("../screens/settings/settings.js"), ","],
};

export const loadedScreens = new Map();

/** Fetch a screen that is likely to be opened next. */
export const prefetch = (key) =>
  SCREENS[key][1]().then(
    (module) => loadedScreens.set(key, module.default),
    () => {},
  );

export const GROUPS = [
  ["overview", "messages", "send"],
  ["domains", "routes", "deliveries"],
  ["templates", "suppressions", "keys", "settings"],
];

export const screenName = (route) => (SCREENS[route.parts[0]] ? route.parts[0] : "overview");
