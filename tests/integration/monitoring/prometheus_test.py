#!/usr/bin/env python3
"""A real Prometheus with the shipped rules scrapes a real server under load and answers the dashboards' queries: prometheus_test.py BIN_FOLDER

Waits for conditions, never for a time; clients keep the server busy meanwhile.
"""

import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools" / "monitoring"))
import live  # noqa: E402

RULES = live.PROMETHEUS_FOLDER / "rules.yml"
ALERTS = live.PROMETHEUS_FOLDER / "alerts.yml"
RULES_TEST = live.PROMETHEUS_FOLDER / "rules_test.yml"

# One package brings both; what needs neither is tested all the same.
needs_prometheus = unittest.skipUnless(shutil.which("prometheus") and shutil.which("promtool"), "prometheus or promtool is missing")

binaries = None  # the folder of the programs, as main was told


def promtool(*arguments, text=None):
    return subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, check=False)


def has_a_number(result):
    return any(math.isfinite(float(sample["value"][1])) for sample in result)


class ShippedRulesTest(unittest.TestCase):
    @needs_prometheus
    def test_promtool_accepts_configuration_and_rules(self):
        for arguments in (("check", "config", live.PROMETHEUS_FOLDER / "prometheus.yml"), ("check", "rules", RULES, ALERTS)):
            result = promtool(*arguments)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    @needs_prometheus
    def test_rules_compute_and_alerts_fire_as_their_cases_say(self):
        result = promtool("test", "rules", RULES_TEST)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_each_alert_has_a_case_and_an_entry_in_the_runbook(self):
        cases = RULES_TEST.read_text()
        headings = re.findall(r"^## (\S+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
        rules = re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.MULTILINE)[1:]
        alerts = [rule.split()[0] for rule in rules]
        self.assertEqual(alerts, headings)
        for alert, rule in zip(alerts, rules):
            self.assertIn(f"runbook.md#{alert.lower()}\n", rule)
            self.assertRegex(cases, rf"- alertname: {alert}\n", f"{alert} has no case in which it fires")


class ShippedDashboardsTest(unittest.TestCase):
    def setUp(self):
        self.assertEqual([path.stem for path in live.DASHBOARDS], ["expert-cache", "serving"])
        self.dashboards = [json.loads(path.read_text()) for path in live.DASHBOARDS]

    def test_files_are_what_their_source_writes(self):
        result = subprocess.run([ROOT / "tools" / "monitoring" / "dashboards.py", "--check"], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_panels_are_told_apart_explained_and_have_units(self):
        self.assertEqual(len({dashboard["uid"] for dashboard in self.dashboards}), len(self.dashboards))
        for dashboard in self.dashboards:
            panels = dashboard["panels"]
            self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
            for panel in panels:
                with self.subTest(dashboard=dashboard["title"], panel=panel["title"]):
                    self.assertTrue(panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"])
                    self.assertEqual(len({target["refId"] for target in panel["targets"]}), len(panel["targets"]))
                    for source in [panel, *panel["targets"]]:
                        self.assertEqual(source["datasource"]["uid"], "${datasource}")

    def test_no_two_panels_share_a_place(self):
        for dashboard in self.dashboards:
            taken = set()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & taken, panel["title"])
                self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
                taken |= cells


@needs_prometheus
class LiveTest(unittest.TestCase):
    """One server, one Prometheus and one load for all cases."""

    @classmethod
    def setUpClass(cls):
        grpc, cls.http = cls.enterClassContext(live.pregated(binaries))
        cls.prometheus = cls.enterClassContext(live.prometheus(cls.http))
        cls.enterClassContext(live.Load(binaries, grpc))
        # Every tier has been at work, calls have failed, and a rate can be taken of that.
        for busy in ('pregate_finished_total{reason="length"} > 10', 'pregate_finished_total{reason="deadline"} > 0', 'pregate_requests_rejected_total{reason="invalid"} > 0'):
            cls.prometheus.wait_for(busy)
        cls.prometheus.wait_for('sum without (reason) (rate(pregate_expert_loaded_bytes_total{source="disk"}[1m])) > 0')

    def test_the_target_is_up_and_its_metrics_are_as_promtool_wants_them(self):
        self.assertEqual([sample["value"][1] for sample in self.prometheus.query('up{job="pregate"}')], ["1"])
        result = promtool("check", "metrics", text=live.fetch(f"http://{self.http}/metrics"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout + result.stderr, "")

    def test_every_rule_is_evaluated_without_an_error(self):
        def rules():
            return [rule for group in self.prometheus.get("rules")["groups"] for rule in group["rules"]]

        live.wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), "every rule has been evaluated")
        for rule in rules():
            self.assertEqual(rule.get("lastError", ""), "", rule["name"])

    def test_every_recording_rule_yields_numbers(self):
        rules = [rule for group in self.prometheus.get("rules", type="record")["groups"] for rule in group["rules"]]
        self.assertEqual(len(rules), RULES.read_text().count("- record: "))
        for rule in rules:
            with self.subTest(rule=rule["name"]):
                self.assertTrue(has_a_number(self.prometheus.query(rule["query"])), rule["query"])
                selector = rule["name"] + "".join(f'{{quantile="{value}"}}' for value in rule.get("labels", {}).values())
                recorded = self.prometheus.wait_for(f"{selector} == {selector}")  # which NaN is not
                self.assertEqual([sample["metric"]["model"] for sample in recorded], ["switch-mini"])

    def test_every_query_of_every_panel_yields_numbers(self):
        queries = 0
        for path in live.DASHBOARDS:
            for panel, legend, expression in live.panel_queries(json.loads(path.read_text()), "1m"):
                queries += 1
                with self.subTest(dashboard=path.stem, panel=panel["title"], legend=legend):
                    live.wait_until(lambda expression=expression: has_a_number(self.prometheus.query(expression)), expression)
        self.assertGreater(queries, 60)

    def test_both_sides_of_every_alert_exist(self):
        """An alert's expression is empty while all is well, so that a misspelt metric would never be noticed: the metrics that it compares are asked for one by one."""
        rules = [rule for group in self.prometheus.get("rules", type="alert")["groups"] for rule in group["rules"]]
        self.assertEqual(len(rules), ALERTS.read_text().count("- alert: "))
        for rule in rules:
            names = re.findall(r"(?:model:)?pregate_\w+(?::\w+)?|\bup\b", rule["query"])
            self.assertTrue(names, rule["query"])
            for name in names:
                with self.subTest(alert=rule["name"], metric=name):
                    self.prometheus.wait_for(f"{name} == {name}")


if __name__ == "__main__":
    binaries = pathlib.Path(sys.argv.pop(1))
    unittest.main(verbosity=2)
