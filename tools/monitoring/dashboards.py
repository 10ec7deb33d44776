#!/usr/bin/env python3
"""Writes Grafana's dashboards, deploy/grafana/dashboards/*.json, from the panels below: dashboards.py [--check]

--check writes nothing and exits 1 when a file says anything else. In the queries F stands for the chosen models and servers.
"""

import collections
import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"

FILTER = 'model=~"$model",instance=~"$instance"'
RATE = "[$__rate_interval]"  # at least four scrapes
COLUMNS = 24

Panel = collections.namedtuple("Panel", "title description unit queries kind width height", defaults=("timeseries", 8, 8))
Query = collections.namedtuple("Query", "expression legend")


def rate(metric, by="", labels=""):
    """The sum of a counter's rate, by some labels."""
    return f"sum by ({by}) (rate(pregate_{metric}{{{FILTER}{',' if labels else ''}{labels}}}{RATE}))"


def share(part, *whole):
    return Query(f"{part} / ({' + '.join(whole)})", "")


def gauge(metric, by="", labels=""):
    return f"sum by ({by}) (pregate_{metric}{{{FILTER}{',' if labels else ''}{labels}}})"


def quantiles(metric, levels=(0.5, 0.95, 0.99), labels=""):
    return [Query(f"histogram_quantile({level}, {rate(f'{metric}_bucket', 'le', labels)})", f"p{level * 100:g}") for level in levels]


def mean(metric):
    return f"{rate(f'{metric}_sum')} / {rate(f'{metric}_count')}"


GENERATES = 'method=~"Generate|Complete"'
LOOKUPS = [rate(f"expert_cache_{kind}_total") for kind in ("hits", "late_hits", "misses")]
LAYER_LOOKUPS = [rate(f"expert_layer_{kind}_total", "layer") for kind in ("hits", "late_hits", "misses")]
STALL = Query(f"{rate('expert_stall_seconds_total')} / {rate('engine_step_seconds_sum')}", "stalled")
COPIED = rate("expert_prefetch_bytes_total", labels='result!="cancelled"')


def stat(title, description, unit, query):
    return Panel(title, description, unit, [Query(query, "")], "stat", 4, 4)


SERVING = [
    stat("Requests", "Calls that generate, answered each second.", "reqps", rate("requests_total", labels=GENERATES)),
    stat("Tokens", "Generated and delivered each second.", "short", rate("generation_tokens_total")),
    stat("First token, p95", "From the submission of a request to its first token.", "s", quantiles("time_to_first_token_seconds", (0.95,))[0].expression),
    stat("Next token, p95", "From a token to the next of the same request.", "s", quantiles("inter_token_latency_seconds", (0.95,))[0].expression),
    stat(
        "Failed",
        "Share of the calls that generate which ended by the server's fault: what the availability objective counts.",
        "percentunit",
        f"{rate('requests_total', labels=GENERATES + ',code=~' + chr(34) + 'UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS|RESOURCE_EXHAUSTED' + chr(34))} / {rate('requests_total', labels=GENERATES)}",
    ),
    stat("Servers ready", "Servers that are loaded, neither stuck nor draining.", "short", gauge("health_state", labels='state="ready"')),
    Panel("Requests by method", "Calls answered each second; methods that nobody calls are left out.", "reqps", [Query(f"{rate('requests_total', 'method')} > 0", "{{method}}")]),
    Panel("Requests by why they ended", "Requests that the engine took and has ended, each second.", "reqps", [Query(rate("finished_total", "reason"), "{{reason}}")]),
    Panel("Tokens", "Each second: prompts computed, prompts found in the KV cache, generated.", "short", [Query(rate("prompt_tokens_total", "source"), "prompt, {{source}}"), Query(rate("generation_tokens_total"), "generated")]),
    Panel("Time to the first token", "From the submission of a request to its first token, queue included.", "s", quantiles("time_to_first_token_seconds")),
    Panel("Time to the next token", "From a token to the next of the same request.", "s", quantiles("inter_token_latency_seconds")),
    Panel("Duration of a request", "From the submission of a request to its end.", "s", quantiles("request_duration_seconds")),
    Panel("Time in the queue", "From the submission of a request to its first step.", "s", quantiles("request_queue_seconds")),
    Panel("Time of prefill", "From the first step of a request to its first token.", "s", quantiles("request_prefill_seconds")),
    Panel("Running and waiting", "Sequences that the engine advances, and requests that wait for a place.", "short", [Query(gauge("requests_running"), "running"), Query(gauge("requests_waiting"), "waiting")]),
    Panel("Errors by code", "Calls each second that ended otherwise than OK; codes that do not occur are left out.", "reqps", [Query(rate("requests_total", "code", 'code!="OK"') + " > 0", "{{code}}")]),
    Panel("Refused by reason", "Requests each second that never reached the engine.", "reqps", [Query(rate("requests_rejected_total", "reason"), "{{reason}}")]),
    Panel("Blocks of the KV cache", "By state; full when none is free and none cached.", "short", [Query(gauge("kv_cache_blocks", "state"), "{{state}}")]),
    Panel("Saturation", "Share of the KV cache in use, and of one CPU core's time.", "percentunit", [Query(f"max(pregate_kv_cache_usage_ratio{{{FILTER}}})", "KV cache, fullest server"), Query('max(rate(process_cpu_seconds_total{instance=~"$instance"}[$__rate_interval]))', "CPU cores, busiest server")]),
    Panel("A step", "Mean sequences and tokens of a step, and sequences preempted each second.", "short", [Query(mean("batch_size"), "sequences"), Query(mean("batch_tokens"), "tokens"), Query(rate("preemptions_total"), "preempted/s")]),
    Panel("Time of a step, p95", "By what its tokens were.", "s", [Query(f"histogram_quantile(0.95, {rate('engine_step_seconds_bucket', 'le,phase')})", "{{phase}}")]),
    Panel("Slow readers", "Streams that had more to send and waited for a write, on average.", "short", [Query(rate("stream_write_blocked_seconds_total"), "waiting streams")]),
    Panel("Memory of the process", "Resident, by server.", "bytes", [Query('process_resident_memory_bytes{instance=~"$instance"}', "{{instance}}")]),
    Panel("Open descriptors", "By server, beside the limit.", "short", [Query('process_open_fds{instance=~"$instance"}', "{{instance}}"), Query('process_max_fds{instance=~"$instance"}', "{{instance}}, limit")]),
]

EXPERT_CACHE = [
    stat("Hits", "Share of the look-ups, one for each step, layer and expert, that found the expert ready.", "percentunit", share(LOOKUPS[0], *LOOKUPS).expression),
    stat("Late hits", "Share that found it on its way.", "percentunit", share(LOOKUPS[1], *LOOKUPS).expression),
    stat("Misses", "Share that found nothing.", "percentunit", share(LOOKUPS[2], *LOOKUPS).expression),
    stat("Stalled", "Share of the steps' time that waited for experts.", "percentunit", STALL.expression),
    stat("Prefetched in time", "Share of the prefetched and copied bytes that were there when they were needed.", "percentunit", f"{rate('expert_prefetch_bytes_total', labels='result=' + chr(34) + 'useful' + chr(34))} / {COPIED}"),
    stat("Link busy", "Share of the time that experts are being copied.", "percentunit", f"avg(rate(pregate_link_busy_seconds_total{{{FILTER}}}{RATE}))"),
    Panel("Look-ups by what they found", "Shares; hits, late hits and misses are all look-ups.", "percentunit", [share(part, *LOOKUPS)._replace(legend=legend) for part, legend in zip(LOOKUPS, ("hits", "late hits", "misses"))]),
    Panel("Bytes loaded", "By where from and what for, each second.", "Bps", [Query(rate("expert_loaded_bytes_total", "source,reason"), "{{source}}, {{reason}}")]),
    Panel("Stall", "Share of the steps' time that waited for experts.", "percentunit", [STALL]),
    Panel("What became of prefetched bytes", "Each second: in time, under way when needed, never used, given up before they were copied.", "Bps", [Query(rate("expert_prefetch_bytes_total", "result"), "{{result}}")]),
    Panel("Use of prefetching", "Shares of the prefetched and copied bytes whose use is decided.", "percentunit", [Query(f"{rate('expert_prefetch_bytes_total', 'result', 'result!=' + chr(34) + 'cancelled' + chr(34))} / ignoring (result) group_left () {COPIED}", "{{result}}")]),
    Panel("Speculation: right", "Share of the predicted experts that the layer then needed, by mode.", "percentunit", [Query(f"{rate('speculation_correct_total', 'mode')} / ({rate('speculation_predicted_total', 'mode')} > 0)", "{{mode}}")]),
    Panel("Hits by layer", "Share of each layer's look-ups that found the expert ready. Needs --layer-metrics.", "percentunit", [share(LAYER_LOOKUPS[0], *LAYER_LOOKUPS)._replace(legend="layer {{layer}}")], "status-history", 16, 10),
    Panel("Layers that are predicted", "1 where speculation is on at present. Needs --layer-metrics.", "short", [Query(f"max by (layer) (pregate_speculation_enabled{{{FILTER}}})", "layer {{layer}}")], "timeseries", 8, 10),
    Panel("Time to load an expert", "From asking for it to its being ready, by where from.", "s", [Query(f"histogram_quantile({level}, {rate('expert_load_seconds_bucket', 'le,source')})", f"{{{{source}}}}, p{level * 100:g}") for level in (0.5, 0.95)]),
    Panel("Link", "Measured on the latest copies, summed over servers.", "Bps", [Query(gauge("link_bandwidth_bytes_per_second"), "bandwidth")]),
    Panel("Evictions", "Experts that gave up their slot, for each look-up.", "percentunit", [share(rate("expert_cache_evictions_total"), *LOOKUPS)._replace(legend="evictions")]),
    Panel("Slots", "By what is in them.", "short", [Query(gauge("expert_cache_slots", "state"), "{{state}}")]),
    Panel("Device memory", "By use.", "bytes", [Query(gauge("device_memory_bytes", "pool"), "{{pool}}")]),
    Panel("Host memory for experts", "How much there is, and how much of it holds one.", "bytes", [Query(gauge("expert_host_bytes", "kind"), "{{kind}}")]),
    Panel("Reads from disk", "Experts each second: at the first attempt, at a later one, not at all.", "short", [Query(rate("expert_disk_reads_total", "result"), "{{result}}")]),
    Panel("Prefetches under way", "Bytes whose use is not decided.", "bytes", [Query(gauge("expert_prefetch_pending_bytes"), "pending")]),
    Panel("In the smaller encoding", "Tokens each second that went through an expert in the smaller encoding; of the codec adaptive alone.", "short", [Query(rate("expert_reduced_precision_tokens_total"), "tokens")]),
]

DASHBOARDS = {"serving": ("Pregate: serving", SERVING), "expert-cache": ("Pregate: expert cache", EXPERT_CACHE)}

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def field_config(panel):
    defaults = {"unit": panel.unit, "min": 0}
    if panel.unit == "percentunit" and panel.title not in ("Saturation", "Evictions"):
        defaults["max"] = 1
    if panel.kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
    elif panel.kind == "status-history":
        defaults["color"] = {"mode": "continuous-RdYlGr"}
    return {"defaults": defaults, "overrides": []}


OPTIONS = {
    "stat": {"colorMode": "none", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}},
    "status-history": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": False}, "showValue": "never", "tooltip": {"mode": "single", "sort": "none"}},
}


def panel_json(number, panel, x, y):
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": field_config(panel),
        "options": OPTIONS[panel.kind],
        "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "editorMode": "code", "expr": query.expression, "legendFormat": query.legend or "__auto", "range": True} for i, query in enumerate(panel.queries)],
    }


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "query": query, "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 1}


def dashboard(name, title, panels):
    placed = []
    x = y = height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, height = 0, y + height, 0
        placed.append(panel_json(len(placed) + 1, panel, x, y))
        x, height = x + panel.width, max(height, panel.height)
    return {
        "uid": f"pregate-{name}",
        "title": title,
        "tags": ["pregate"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                variable("model", "Model", "label_values(pregate_build_info, model)"),
                variable("instance", "Server", 'label_values(pregate_build_info{model=~"$model"}, instance)'),
            ]
        },
        "links": [{"title": "Pregate's other dashboard", "type": "dashboards", "tags": ["pregate"], "keepTime": True, "includeVars": True}],
        "panels": placed,
    }


def main():
    for name, (title, panels) in DASHBOARDS.items():
        path = FOLDER / f"{name}.json"
        text = json.dumps(dashboard(name, title, panels), indent=1) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path} is not what {__file__} writes: run `make docs` and commit what it changed")


if __name__ == "__main__":
    main()
