"""Closes models: a request for a model is refused while the kv store has an entry for it."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.admission import Decision_Allow, Decision_Deny, Denial
from wit_world.imports.kv import Store

# Opened at the first call: an instance serves many, and stores cannot be opened while it is made.
store = None


class Admission(exports.Admission):
    def admit(self, request, subjects):
        global store
        try:
            store = store or Store.open("PLUGIN-NAME")
            entry = store.get(f"closed/{request.model}")
        except Err as error:
            # A text is the plugin's own error; any other exception would be a trap.
            raise Err(f"kv store PLUGIN-NAME: {error.value}")
        return [decide(entry) for _ in subjects]

    def settle(self, settlements):
        pass  # Nothing was reserved, so nothing is given back.


def decide(entry):
    """The entry's text goes to the client."""
    if entry is None:
        return Decision_Allow(None)
    return Decision_Deny(Denial("closed", entry.decode(errors="replace"), None, None, None))
