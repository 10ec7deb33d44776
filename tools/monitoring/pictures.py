#!/usr/bin/env python3
"""Draws the dashboards from real data, for the documents: pictures.py BIN_FOLDER [SECONDS]   (packages: requirements.txt)

A server under load, scraped by a real Prometheus for SECONDS (default 60); every panel is drawn from the query that Grafana would send. Writes
docs/pictures/dashboards/NAME.png, and prints how long scrapes took meanwhile.
"""

import io
import json
import math
import pathlib
import sys
import time

import live
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402
from PIL import Image  # noqa: E402

OUTPUT = live.ROOT / "docs" / "pictures" / "dashboards"
RATE_INTERVAL = "5s"
STEP_SECONDS = 1


def shown(value, unit):
    """A value in a panel's unit, short."""
    if not math.isfinite(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    suffix = {"bytes": "B", "Bps": "B/s", "reqps": "/s"}.get(unit, "")
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{suffix}"
    return f"{value:.3g} {suffix}".rstrip()


def legend_of(pattern, labels):
    for label, value in labels.items():
        pattern = pattern.replace("{{" + label + "}}", value)
    return pattern


def draw_panel(axes, panel, series, start):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if panel["type"] == "stat":
        axes.axis("off")
        (values,) = [[float(value) for _, value in one["values"]] for _, one in series]
        axes.text(0.5, 0.4, shown(values[-1], unit), fontsize=15, ha="center", va="center", transform=axes.transAxes)
        return
    if panel["type"] == "status-history":
        rows = [[float(value) for _, value in one["values"]] for _, one in series]
        length = max(map(len, rows))
        rows = [[math.nan] * (length - len(row)) + row for row in rows]
        axes.imshow(rows, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(range(len(rows)), [legend_of(legend, one["metric"]) for legend, one in series])
        return
    for legend, one in series:
        axes.plot([float(at) - start for at, _ in one["values"]], [float(value) for _, value in one["values"]], linewidth=1, label=legend_of(legend, one["metric"]))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # the legend goes above the lines
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=5, loc="upper left", ncols=2, frameon=False)


def draw(dashboard, prometheus, start, end, path):
    panels = {}
    for panel, legend, expression in live.panel_queries(dashboard, RATE_INTERVAL):
        found = prometheus.query_range(expression, start, end, STEP_SECONDS)
        panels.setdefault(panel["id"], (panel, []))[1].extend((legend, one) for one in found)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = plt.figure(figsize=(12, rows * 0.24))
    grid = figure.add_gridspec(rows, 24, hspace=3.2, wspace=6, left=0.06, right=0.99, top=0.955, bottom=0.02)
    for panel, series in panels.values():
        place = panel["gridPos"]
        bottom = place["y"] + place["h"] - (0 if panel["type"] == "stat" else 1)
        draw_panel(figure.add_subplot(grid[place["y"] : bottom, place["x"] : place["x"] + place["w"]]), panel, series, start)
    figure.suptitle(f"{dashboard['title']}   ({end - start:.0f} s of switch-mini)", fontsize=10, x=0.06, ha="left", y=0.985)
    image = io.BytesIO()
    figure.savefig(image, dpi=80)
    Image.open(image).convert("RGB").quantize(256).save(path, optimize=True)  # fewer bytes


def main():
    binaries = pathlib.Path(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with live.pregated(binaries) as (grpc, http), live.prometheus(http) as prometheus, live.Load(binaries, grpc):
        prometheus.wait_for('pregate_finished_total{reason="length"} > 0')
        start = time.time() + float(RATE_INTERVAL.rstrip("s"))
        time.sleep(start + seconds - time.time())  # what a picture shows is a time
        for path in live.DASHBOARDS:
            draw(json.loads(path.read_text()), prometheus, start, start + seconds, OUTPUT / f"{path.stem}.png")
        for name, level in (("median", 0.5), ("p99", 0.99), ("longest", 1)):
            (sample,) = prometheus.query(f"quantile_over_time({level}, scrape_duration_seconds[{math.ceil(seconds)}s])")
            print(f"{name} scrape: {float(sample['value'][1]) * 1e3:.1f} ms")
        (sample,) = prometheus.query("scrape_samples_scraped")
        print(f"{sample['value'][1]} samples a scrape")


if __name__ == "__main__":
    main()
