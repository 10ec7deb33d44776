#!/usr/bin/env python3
"""Writes the tables of docs/metrics.md from what a real server exports: metrics_table.py BIN_FOLDER [--check]

Starts BIN_FOLDER/pregated on models/switch-mini and reads its /metrics. --check writes nothing and exits 1 when the document says anything else.
"""

import argparse
import collections
import pathlib
import re
import sys

import live

DOCUMENT = live.ROOT / "docs" / "metrics.md"
BEGIN, END = "<!-- tables: make docs writes them -->\n", "<!-- end of the tables -->\n"

# The sections, and what the names in them begin with (without pregate_): the first that fits is taken.
SECTIONS = {
    "Requests": r"requests_|finished_|preemptions_",
    "Latency": r"time_|inter_token_|request_(queue|prefill|decode|duration)_",
    "Tokens": r"(request_)?(prompt|generation)_tokens",
    "Engine": r"engine_|batch_|kv_cache_",
    "Expert cache": r"expert_",
    "Speculation": r"speculation_",
    "Device and link": r"device_|link_",
    "Server": r"grpc_|stream_|health_|(build|config)_info",
    "Process": r"process_",
}

# Labels whose values the model or the configuration decides; those of *_info likewise.
OPEN_LABELS = {"layer", "codec"}
MOST_VALUES = 8  # that a cell lists

UNITS = {"seconds": "s", "bytes": "bytes", "second": "bytes/s", "ratio": "0…1", "tokens": "tokens", "blocks": "blocks", "slots": "slots", "fds": "descriptors"}


class Family:
    def __init__(self, name, kind, help_text):
        self.name, self.kind, self.help = name, kind, help_text
        self.labels = collections.defaultdict(list)  # label → its values, in order
        self.bounds = []  # of a histogram's buckets


def parse(exposition):
    """The families of Prometheus' text format, in order."""
    families = {}
    for line in exposition.splitlines():
        if match := re.match(r"# HELP (\S+) (.*)", line):
            help_text = match.group(2)
        elif match := re.match(r"# TYPE (\S+) (\S+)", line):
            families[match.group(1)] = family = Family(match.group(1), match.group(2), help_text)
        else:
            for label, value in re.findall(r'(\w+)="([^"]*)"', line):
                values = family.bounds if label == "le" else family.labels[label]
                if value not in values:
                    values.append(value)
    return list(families.values())


def section_of(family):
    name = family.name.removeprefix("pregate_")
    for section, pattern in SECTIONS.items():
        if re.match(pattern, name):
            return section
    raise SystemExit(f"{family.name} belongs to no section: add it to SECTIONS in {__file__}")


def unit_of(name):
    words = name.removesuffix("_total").split("_")
    if words[-1] == "timestamp" or "timestamp" in words or "start" in words:
        return "Unix time"
    return UNITS.get(words[-1], "")


def labels_cell(family):
    cells = []
    for label, values in family.labels.items():
        if label == "model":
            continue
        if family.name.endswith("_info") or label in OPEN_LABELS:
            cells.append(f"`{label}`")
        elif len(values) > MOST_VALUES:
            cells.append(f"`{label}`: {values[0]}, {values[1]} … {len(values)} values")
        else:
            cells.append(f"`{label}`: {', '.join(values)}")
    return "; ".join(cells)


def kind_cell(family):
    bounds = [bound for bound in family.bounds if bound != "+Inf"]
    return f"histogram, {len(bounds)} bounds {bounds[0]} … {bounds[-1]}" if bounds else family.kind


def tables(families):
    sections = {section: [] for section in SECTIONS}
    for family in families:
        sections[section_of(family)].append(f"| `{family.name}` | {kind_cell(family)} | {labels_cell(family)} | {unit_of(family.name)} | {family.help} |\n")
    text = ""
    for section, rows in sections.items():
        text += f"\n### {section}\n\n| name | kind | labels | unit | what it tells |\n|---|---|---|---|---|\n{''.join(rows)}"
    return text + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with live.pregated(arguments.binaries) as (_, http):
        families = parse(live.fetch(f"http://{http}/metrics"))
    before = DOCUMENT.read_text()
    head, _, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        sys.exit(f"{DOCUMENT}: the lines that the tables stand between are missing")
    after = head + BEGIN + tables(families) + END + tail
    if after == before:
        return
    if arguments.check:
        sys.exit("docs/metrics.md does not say what pregated exports: run `make docs` and commit what it changed")
    DOCUMENT.write_text(after)


if __name__ == "__main__":
    main()
