"""Reads a dashboard into Grafana's published types and writes it again: what is lost on the way, no Grafana knows."""

import json
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def unknown(ours, theirs, path="dashboard"):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            if name not in theirs:
                yield f"{path}.{name}"
            else:
                yield from unknown(value, theirs[name], f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (value, other) in enumerate(zip(ours, theirs)):
            yield from unknown(value, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


plugins.register_default_plugins()
with open(sys.argv[1]) as file:
    written = json.load(file)
read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
found = list(unknown(written, read))
# That the comparison sees anything at all.
assert list(unknown({**written, "titel": "x"}, read)) == ["dashboard.titel"]
assert len(written["panels"]) == len(read["panels"]) > 0
sys.exit("\n".join(found) or 0)
