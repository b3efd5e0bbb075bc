// Closes models: a request for a model is refused while the kv store has an entry for it.

import { Store } from "tollgate:storage/kv@0.1.0";

const explain = (error) => `kv store PLUGIN-NAME: ${JSON.stringify(error.payload ?? String(error))}`;

// Opened at the first call: an instance serves many, and stores cannot be opened while it is made.
let store;

export const admission = {
  admit(request, subjects) {
    let entry;
    try {
      store ??= Store.open("PLUGIN-NAME");
      entry = store.get(`closed/${request.model}`);
    } catch (error) {
      throw explain(error); // A text is the plugin's own error; anything else would be a trap.
    }
    return subjects.map(() => decide(entry));
  },

  settle(settlements) {
    // Nothing was reserved, so nothing is given back.
  },
};

// The entry's text goes to the client.
function decide(entry) {
  if (entry === undefined) return { tag: "allow" };
  return { tag: "deny", val: { limitName: "closed", reason: new TextDecoder().decode(entry) } };
}
