# SPDX-License-Identifier: BSD-3-Clause
"""Results as JSON, as text, and as RESULTS.md."""

import json
import os

from figures import Spread, ratio, series
from workloads import ALL, GIB


def rates(results, workload, peer):
    return [s["rate"] for s in results["cells"].get(
        "%s|%s" % (workload.name, peer), [])]


def rows(results):
    names = results["identity"]["workloads"]
    return [w for w in ALL if w.name in names]


def table(results):
    """Medians with their spread; the server's CPU."""
    idents = list(results["peers"])
    out = ["| workload | " + " | ".join(results["peers"].values()) + " |",
           "|---" * (len(idents) + 1) + "|"]
    for w in rows(results):
        cells = []
        for p in idents:
            values = rates(results, w, p)
            if not values:
                cells.append("")
                continue
            cells.append(Spread([w.rate(v) for v in values]).text())
        out.append("| %s, %s | %s |" % (w.name, w.unit, " | ".join(cells)))
    return "\n".join(out)


def text(results):
    return table(results)


def write(results, out):
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "results.json"), "w") as f:
        json.dump(results, f, indent=1, sort_keys=True)
        f.write("\n")
    with open(os.path.join(out, "RESULTS.md"), "w") as f:
        f.write("# Measured\n\n" + text(results) + "\n")
