"""Prometheus' own parser for Python: what it makes of a server's metrics.

Argument: the URL of the metrics. Prints each family as a name and a type, and fails on what no classic scraper reads.
"""

import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
    content_type = answer.headers["Content-Type"]
    text = answer.read().decode()
if content_type != "text/plain; version=0.0.4; charset=utf-8":
    sys.exit(f"not the text format: {content_type}")
for family in text_string_to_metric_families(text):
    # A sample that no family announces is one of its own, without type.
    if family.type not in ("counter", "gauge", "histogram") or not family.documentation or not family.samples:
        sys.exit(f"{family} has no type, help or samples")
    if family.type == "histogram":
        buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
        count = next(sample.value for sample in family.samples if sample.name.endswith("_count"))
        if buckets != sorted(buckets) or buckets[-1] != count:
            sys.exit(f"{family} is no histogram")
    print(family.name, family.type)
