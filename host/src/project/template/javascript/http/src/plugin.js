// A page under a route of its own: it greets whoever asks, and counts the visits in a kv store.

import { Store } from "tollgate:storage/kv@0.1.0";

// Each request has an instance of its own: what is to outlive it belongs into a store.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  if (page(new URL(request.url).pathname) !== "") return text(404, "there is no such page\n");
  if (request.method !== "GET") return text(405, "only GET\n");
  // The name of the client's key, which the server tells; the key itself it does not.
  const client = request.headers.get("tollgate-client") ?? "stranger";
  try {
    return text(200, `Hello ${client}, you are visitor ${visit()}.\n`);
  } catch (error) {
    return text(500, `kv store PLUGIN-NAME: ${JSON.stringify(error.payload ?? String(error))}\n`);
  }
}

// What of a path stands behind the plugin's route.
const page = (path) => path.replace(/^\/PLUGIN-NAME/, "").replaceAll("/", "");

// Counts this visit; how many there are.
const visit = () => Store.open("PLUGIN-NAME").increment("visits", 1n, undefined);

const text = (status, body) =>
  new Response(body, { status, headers: { "content-type": "text/plain; charset=utf-8" } });
