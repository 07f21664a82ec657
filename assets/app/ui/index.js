// All user interface components, for screens to import from one place.
export * from "./button.js";
export * from "./copy.js";
export * from "./dialog.js";
export * from "./form.js";
export * from "./icons.js";
export * from "./layout.js";
export * from "./status.js";
export * from "./text.js";
export * from "./toast.js";
