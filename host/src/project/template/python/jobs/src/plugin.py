"""Counts the requests of the last hour, every minute, into a kv store where any policy can read them fast."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.jobs import Job, Report, Timing_Every
from wit_world.imports.kv import SetOptions, Store
from wit_world.imports.sql import Database, Statement, Value_Integer

HOUR_MS = 3_600_000
COUNT = "SELECT count(*) FROM request_logs WHERE timestamp > ?1"


class Jobs(exports.Jobs):
    def schedule(self):
        return [Job("count", Timing_Every(60_000))]

    def run(self, name, budget):
        try:
            return count(budget.now_ms)
        except Err as error:
            # A text is the plugin's own error; any other exception would be a trap.
            raise Err(str(error.value))


def count(now_ms):
    since = Value_Integer(min(max(now_ms - HOUR_MS, 0), 2**63 - 1))
    [[requests]] = Database.open("gateway").query(Statement(COUNT, [since])).rows
    # It is gone when this job no longer runs.
    Store.open("PLUGIN-NAME").set("last-hour", str(requests.value).encode(), SetOptions(HOUR_MS, False))
    return Report(1, f"{requests.value} requests in the last hour")
