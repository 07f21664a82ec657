// All user interface components, for screens to import from one place.
export * from "./button.js";
export * from "./dialog.js";
export * from "./display.js";
export * from "./form.js";
export * from "./icons.js";
export * from "./text.js";
export * from "./toast.js";
