// Counts the requests of the last hour, every minute, into a kv store where any policy can read them fast.

import { Store } from "tollgate:storage/kv@0.1.0";
import { Database } from "tollgate:storage/sql@0.1.0";

const HOUR_MS = 3_600_000n;
const COUNT = "SELECT count(*) FROM request_logs WHERE timestamp > ?1";

export const jobs = {
  schedule() {
    return [{ name: "count", timing: { tag: "every", val: 60_000n } }];
  },

  run(name, budget) {
    try {
      return count(budget.nowMs);
    } catch (error) {
      throw JSON.stringify(error.payload ?? String(error)); // A text is the plugin's own error; anything else a trap.
    }
  },
};

function count(nowMs) {
  const since = { tag: "integer", val: nowMs > HOUR_MS ? nowMs - HOUR_MS : 0n };
  const [[{ val: requests }]] = Database.open("gateway").query({ sql: COUNT, params: [since] }).rows;
  const value = new TextEncoder().encode(String(requests));
  // It is gone when this job no longer runs.
  Store.open("PLUGIN-NAME").set("last-hour", value, { ttlMs: HOUR_MS, ifAbsent: false });
  return { changed: 1n, summary: `${requests} requests in the last hour` };
}
