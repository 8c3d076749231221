// Placeholder of the companion plugin: it loads and does nothing.
export default {
  id: "tideover",
  name: "tideover",
  description: "Reports turns to tideover.",
  register(api) {
    api.logger?.info?.("tideover: plugin loaded");
  },
};
