# SPDX-License-Identifier: BSD-3-Clause
"""A real node_exporter, and a real Prometheus that scrapes it each second and
has this project's alert rules."""

import contextlib
import json
import os
import subprocess
import urllib.parse
import urllib.request

from lab.command import await_, free_port
from lab.settings import TOP

CONFIG = """\
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%(rules)s]
scrape_configs:
  - job_name: node
    static_configs: [{targets: ["127.0.0.1:%(port)d"]}]
"""


class Prometheus:
    """Both processes; COLLECTED is the textfile collector's directory."""

    def __init__(self, directory, collected):
        self.dir, self.collected = str(directory), str(collected)
        self.port, self.node_port = free_port(), free_port()
        self.processes = []

    def run(self, *argv):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.processes.append(subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, cwd=self.dir))

    def up(self):
        config = os.path.join(self.dir, "prometheus.yml")
        with open(config, "w") as f:
            f.write(CONFIG % {
                "port": self.node_port, "rules": os.path.join(
                    TOP, "contrib/prometheus/rbdcrypt.rules.yml")})
        self.run("prometheus-node-exporter", "--collector.disable-defaults",
                 "--collector.textfile", "--collector.textfile.directory",
                 self.collected,
                 "--web.listen-address=127.0.0.1:%d" % self.node_port)
        self.run("prometheus", "--config.file", config,
                 "--storage.tsdb.path", os.path.join(self.dir, "data"),
                 "--web.listen-address=127.0.0.1:%d" % self.port)
        await_(self.scrapes, 30, "Prometheus scrapes node_exporter")

    def down(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()

    def get(self, path, **parameters):
        url = "http://127.0.0.1:%d/api/v1/%s?%s" \
            % (self.port, path, urllib.parse.urlencode(parameters))
        with urllib.request.urlopen(url, timeout=20) as reply:
            said = json.load(reply)
        assert said["status"] == "success", said
        return said["data"]

    def scrapes(self):
        for p in self.processes:
            assert p.poll() is None, self.log()
        with contextlib.suppress(OSError):
            return self.query("up == 1")
        return False

    def log(self):
        with open(os.path.join(self.dir, "log"), errors="replace") as f:
            return f.read()

    def query(self, expression):
        """[(labels, number)]"""
        return [(r["metric"], float(r["value"][1]))
                for r in self.get("query", query=expression)["result"]]

    def firing(self):
        """{(name of an alert, labels of its series)}"""
        return {(a["labels"]["alertname"], *sorted(
            "%s=%s" % (k, v) for k, v in a["labels"].items()
            if k in ("daemon", "export", "file")))
            for a in self.get("alerts")["alerts"] if a["state"] == "firing"}
