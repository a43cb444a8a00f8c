# SPDX-License-Identifier: BSD-3-Clause
"""A real node_exporter reads what two tenants' servers write; a real
Prometheus stores it and evaluates the rules and the dashboard of contrib/."""

import json
import os
import re
import signal
import time
import urllib.request

import pytest

import lab
from lab.metrics import parse
from lab.prometheus import Prometheus

CONTRIB = os.path.join(lab.TOP, "contrib")
RULES = os.path.join(CONTRIB, "prometheus", "rbdcrypt.rules.yml")


def test_rules_fire_for_what_they_are_for():
    """Each rule fires for its own case only; rbdcrypt.test.yml has them."""
    directory = os.path.dirname(RULES)
    lab.run("promtool", "check", "rules", RULES)
    lab.run("promtool", "test", "rules", "rbdcrypt.test.yml", cwd=directory)
    with open(RULES) as f:
        rules = set(re.findall(r"alert: (\w+)", f.read()))
    with open(os.path.join(directory, "rbdcrypt.test.yml")) as f:
        tested = set(re.findall(r"Rbdcrypt\w+", f.read()))
    assert rules == tested


@pytest.fixture
def collected(tmp_path):
    directory = tmp_path / "collected"
    directory.mkdir()
    return directory


@pytest.fixture
def tenants(servers, images, volume, key, collected):
    """Two servers, one with a key server, and clients that have made every
    kind of request."""
    volume.log_in_by_approle()
    started = {"a": volume.start("metrics=%s" % (collected / "rbdcrypt-a.prom")),
               "b": servers.start(images.luks(offset=4 * lab.MIB), key,
                                  "engine=openssl", "metrics=%s"
                                  % (collected / "rbdcrypt-b.prom"))}
    for server in started.values():
        c = server.connect()
        c.write(lab.pattern(65536), 0)
        c.flush()
        c.read(4096, 0)
    return started


@pytest.fixture
def prometheus(tmp_path, collected):
    directory = tmp_path / "prometheus"
    directory.mkdir()
    p = Prometheus(directory, collected)
    try:
        p.up()
        yield p
    finally:
        p.down()


def samples(path):
    """The samples of a file that exists already."""
    return parse(path.read_text()) if path.exists() else {}


def expressions(dashboard):
    """(title of the panel, expression) as Grafana would ask."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], re.sub(r"\$(instance|daemon|export)", ".*",
                                         expr)


def test_two_tenants_are_watched(tenants, prometheus, collected):
    paths = {name: collected / ("rbdcrypt-%s.prom" % name) for name in tenants}
    written = "rbdcrypt_request_bytes_total"
    for path in paths.values():
        lab.await_(lambda: any(k[0] == written and v == 65536 for k, v in
                               samples(path).items()), 20, "its write")
    # node_exporter takes all of it.
    url = "http://127.0.0.1:%d/metrics" % prometheus.node_port
    with urllib.request.urlopen(url, timeout=20) as reply:
        text = reply.read().decode()
    assert "node_textfile_scrape_error 0" in text
    shown = {line.split("{")[0] for line in text.splitlines()
             if line.startswith("rbdcrypt_")}
    assert shown == {k[0] for path in paths.values() for k in samples(path)}
    # Prometheus keeps the tenants apart.
    lab.await_(lambda: {m["daemon"] for m, v in prometheus.query(
        'rbdcrypt_state{state="serving"} == 1')} ==
        {"rbdcrypt-a", "rbdcrypt-b"}, 20, "both are served")
    assert {m["daemon"] for m, v in prometheus.query(
        "rbdcrypt_recheck_age_seconds")} == {"rbdcrypt-a"}
    # The dashboard: each panel has something to show, or no errors to show.
    with open(os.path.join(CONTRIB, "grafana", "rbdcrypt.json")) as f:
        dashboard = json.load(f)
    quiet = {"Errors", "Key servers, failures"}
    for title, expression in expressions(dashboard):
        if title in quiet:
            assert prometheus.query(expression) == [], title
        else:
            lab.await_(lambda: prometheus.query(expression), 20,
                       "%s: %s" % (title, expression))
    names = {n for _, e in expressions(dashboard)
             for n in re.findall(r"rbdcrypt_[a-z_]+", e)}
    assert {re.sub("_(bucket|sum|count)$", "", n) for n in names} == \
        {re.sub("_(bucket|sum|count)$", "", n) for n in shown}
    assert prometheus.firing() == set()
    # A server that is killed still says that it serves; its file's age does
    # not.
    tenants["b"].expected_status = -signal.SIGKILL
    tenants["b"].kill()
    assert any("state=serving" in k for k in samples(paths["b"]))
    then = time.time() - 120
    os.utime(paths["b"], (then, then))
    lab.await_(lambda: prometheus.firing() == {
        ("RbdcryptMetricsAreOld", "file=%s" % paths["b"])}, 20, "the alert")
