# SPDX-License-Identifier: BSD-3-Clause
"""Results as JSON and as RESULTS.md."""

import json
import os

import attach
import peers as peers_
import remote
import targets
import workloads
from figures import Figures

HEAD = """# Measured

Made by `tests/bench/run` at commit %(commit)s on %(date)s, in %(minutes).0f
minutes%(partial)s; do not edit. Medians of %(rounds)d rounds of %(seconds)g s
with the smallest and the largest value in brackets; the median of a ratio is
that of the ratios within the rounds. %(where)s Each peer has an image of its
own, %(image_mib)d MiB, written in full with the same bytes; peers take turns
within each round.

- **rbdcrypt** is this plugin, **fio rbd plain** librbd inside fio: no NBD and
  no encryption; with "our settings" it has the settings that this plugin makes
  and tcmalloc.
- **The hop** is NBD alone: nbdkit's `null` plugin, which answers at once.
- **The limit** is librbd and the hop one after the other on the same
  processors, 1 / (1/R + 1/N): R the better of fio's columns that were
  measured, N the hop.
- **nbdkit luks filter** is that filter in front of this plugin with
  `key=none`.
- qemu-nbd serves what `rbd create` makes by default, an image with `fast-diff`,
  of which it asks for holes before each read; one column shows it without.
%(flushes)s- LUKS2 has sectors of 4096 bytes here, QEMU's LUKS1 always of 512.
- Targets were set before the first line was written, those of the openssl
  engine, TRIM and sparse images before that engine; "within the spread" means
  that another run may say otherwise.

To measure one row again, with all its columns, by its name:

    tests/bench/run --only "1M read, depth 8"

%(machine)s
"""
LATENCIES = {
    "total": "from the call that submits a request to its completion",
    "completion": "from the end of the call that submits a request to its "
    "completion: what a client does within that call, such as librbd filling "
    "its cache or libnbd writing to a socket, is not in it",
}
FLUSHES = """- Each client's connection begins with a flush, as a virtual machine's does, and
  rows of writes end with one, which is in their time; one column shows this
  plugin with `cache=none`.
"""
README_ROWS = workloads.QUICK + [
    workloads.Workload("1M", "read", 1), workloads.Workload("1M", "write", 1),
    workloads.Workload("16K", "write", 1), workloads.Workload("4K", "read", 1)]
SECTIONS = ("remote", "cells", "attach", "copies", "crowd", "fleet", "guest",
            "trim", "remote-guest")
UNITS = """CPU: in seconds per GiB for rows in MiB/s, in microseconds per
operation for the others."""


def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(out + ["| " + " | ".join(r) + " |" for r in rows])


def text_of(spread, digits=0):
    return spread.text(digits) if spread else ""


def label(workload):
    return "%s, %s" % (workload.name, workload.unit)


def columns(figures):
    """Those with anything in the table, and those that are missing."""
    return [p for p in figures.peers
            if any(figures.cell(w, p) for w in figures.rows)] \
        + sorted(set(figures.results["missing"]) - set(SECTIONS))


def target_table(results, subject):
    found = sorted(targets.evaluate(results, subject),
                   key=lambda t: t.met)  # what is missed comes first
    if not found:
        return ""
    missed = [t for t in found if not t.met]
    title = results["peers"].get(subject, subject)
    lines = ["## Targets: %s" % title, "%d of %d met.%s" % (
        len(found) - len(missed), len(found),
        " The most distant: %s (%+.0f %%)." % (
            min(missed, key=lambda t: t.distance).figure,
            min(t.distance for t in missed) * 100) if missed else ""),
        table(["figure", "measured", "target", "", "distance",
               "measure again"], [t.words() for t in found])]
    return "\n\n".join(lines)


def ratios(figures, subject):
    """SUBJECT against each of the others, and against the limit."""
    others = [p for p in columns(figures)
              if p not in (subject, peers_.HOP)
              and p not in figures.results["missing"]]
    rows = []
    for w in figures.rows:
        rate, limit = figures.rate(w, subject), figures.limit(w)
        if not rate:
            continue
        row = [label(w), rate.text(), limit.text() if limit else "",
               (rate / limit).text(2) if limit else ""]
        for p in others:
            row.append(text_of(figures.ratio(w, subject, p), 2))
        rows.append(row)
    return table(["workload", figures.peers[subject], "the limit",
                  "of the limit"] + ["÷ " + figures.peers[p]
                                     for p in others], rows)


def cell_table(figures, cell):
    shown = columns(figures)
    return table(
        ["workload"] + [title(figures, p) for p in shown],
        [[label(w)] + [cell(w, p) for p in shown] for w in figures.rows])


def title(figures, peer):
    if peer in figures.results["missing"]:
        return peer + " (missing)"
    return figures.peers[peer]


def latencies(figures, w, p):
    """p50, p99, p99.9 in milliseconds."""
    some = [figures.cell(w, p, k, 1e-3) for k in ("p50", "p99", "p999")]
    return " / ".join("%.3g" % s.median for s in some) if all(some) else ""


def costs(figures, w, p):
    digits = 2 if w.unit == "MiB/s" else 0
    words = []
    for who in ("server_cpu", "client_cpu", "osd_cpu"):
        cost = figures.cost(w, p, (who,))
        words.append("%.*f" % (digits, cost.median) if cost else "–")
    return " / ".join(words) if figures.cell(w, p) else ""


def memory_table(figures):
    rows = []
    for p in figures.peers:
        steady = figures.of("memory", p, "steady")
        if not steady:
            continue
        peak = figures.of("memory", p, "peak")
        busy = [s for w in figures.rows
                if (s := figures.cell(w, p, "threads"))]
        rows.append([figures.peers[p], "%d" % len(busy), steady.text(),
                     peak.text(),
                     "%d" % max(s.high for s in busy) if busy else ""])
    for d in guest_disks(figures):
        steady = figures.of("memory", d.ident, "steady")
        if steady:
            rows.append([
                "in the guest: " + d.title, "", steady.text(),
                figures.of("memory", d.ident, "peak").text(), ""])
    return table(["server", "rows", "resident at the end of a round, MiB",
                  "peak, MiB", "most threads"], rows) if rows else ""


def attach_table(figures):
    rows = []
    for header, words in attach.HEADERS.items():
        for p in ("rbdcrypt", "qemu-nbd"):
            name = "%s|%s" % (header, p)
            seconds = figures.of("attach", name, "seconds", 1000)
            if seconds:
                rows.append([words, p, seconds.text()] + [
                    figures.of("attach", name, what).text()
                    for what in ("peak", "steady")])
    return table(["header", "server", "start to first byte, ms",
                  "peak, MiB", "resident, MiB"], rows) if rows else ""


def copies_table(figures):
    rows = []
    size = figures.results["identity"]["image_mib"] / 1024
    for name in figures.results.get("copies", {}):
        what, _, who = name.partition("|")
        cpu = figures.of("copies", name, "server_cpu", 1 / size)
        rows.append([what, {"direct": "librbd LUKS2 inside qemu-img",
                            "rbdcrypt": "rbdcrypt LUKS2",
                            "openssl": "rbdcrypt LUKS2, openssl",
                            "sparse": "the same; the others' data in "
                            "100 GiB",
                            "qemu": "qemu-nbd librbd LUKS2"}[who],
                     figures.of("copies", name, "rate",
                                1 / (1 << 20)).text(),
                     text_of(cpu, 2)])
    return table(["copy", "image opened by", "MiB/s",
                  "server's CPU, s/GiB"], sorted(rows)) if rows else ""


def crowd_table(figures):
    import crowd
    rows = []
    for w in crowd.WORKLOADS:
        for ident in ("rbdcrypt", "qemu-nbd"):
            row = [label(w), ident]
            for count in crowd.COUNTS:
                name = "%s|%d|%s" % (w.name, count, ident)
                rate = figures.of("crowd", name, "rate", w.rate(1))
                rss = figures.of("crowd", name, "rss", 1 / 1024)
                cpu = figures.cost(w, "%d|%s" % (count, ident),
                                   section="crowd")
                row.append("%s; %.0f MiB; %.*f" % (
                    rate.text(), rss.median / count,
                    2 if w.unit == "MiB/s" else 0, cpu.median)
                    if rate else "")
            if any(row[2:]):
                rows.append(row)
    return table(["workload", "a server for each image"] + [
        "%d; resident, each; CPU" % n for n in crowd.COUNTS], rows) \
        if rows else ""


def fleet_table(figures):
    import fleet
    rows = []

    def row(what, name, key, scale=1.0, digits=0):
        some = figures.of("fleet", name, key, scale)
        if some:
            rows.append([what, some.text(digits)])
    row("start with %d exports, s" % fleet.CONFIGURED, fleet.START,
        "seconds", digits=2)
    row("open and idle, beyond the first: MiB each", fleet.IDLE, "mib",
        digits=2)
    row("open and idle, beyond the first: threads each", fleet.IDLE,
        "threads", digits=2)
    row("opened one after the other, ms each", fleet.IDLE, "open", 1000)
    for w in fleet.RATES:
        for count in (1, fleet.BUSY):
            row("%s, %s, %s" % (w.name, "%d together" % count if count > 1
                                else "one export", w.unit),
                "%s|%d" % (w.name, count), "rate", w.rate(1))
    for name in fleet.NEIGHBOURS:
        row("%s, %s: p99, ms" % (fleet.QUIET.name, {
            "alone": "alone",
            "noisy": "beside another export's " + fleet.NOISE.name,
            "apart": "beside the same of another server"}[name]),
            name, "p99", 1e-3, 2)
    return table(["one server of many exports (%d open)" % fleet.OPEN, ""],
                 rows) if rows else ""


def place_rate(figures, place, w, peer):
    return figures.of("remote", "%s|%s|%s" % (place.ident, w.name, peer),
                      "rate", w.rate(1))


def remote_peers(figures):
    """{ident: title} of those that were measured beyond a link."""
    titles = {p.ident: p.title for p in peers_.standard() + peers_.extra()}
    titles.update(figures.results["peers"])
    found = {name.split("|")[2] for name in figures.results.get("remote", {})
             if name.count("|") == 2}
    order = [*remote.PEERS, *titles]
    return {p: titles[p] for p in sorted(found, key=order.index)}


def calibration(figures, place, section="remote"):
    """What the link was, in words."""
    trip = figures.of(section, "link|" + place.ident, "round_trip")
    rate = figures.of(section, "link|" + place.ident, "rate", 8e-6)
    return "%s. Measured: round trip %s µs, %s Mbit/s." % (
        place.title, trip.text(), rate.text()) if trip else place.title + "."


def place_table(figures, place):
    """Rates, and ours as multiples of the others'."""
    shown = remote_peers(figures)
    rates, ratios = [], []
    for w in remote.WORKLOADS:
        some = {p: place_rate(figures, place, w, p) for p in shown}
        if not any(some.values()):
            continue
        rates.append([label(w)] + [text_of(some[p]) for p in shown])
        for ours in (peers_.PLUGIN, peers_.OPENSSL):
            if some.get(ours):
                ratios.append([label(w), shown[ours]] + [
                    (some[ours] / some[p]).text(2) if some.get(p) else ""
                    for p in remote.OTHERS])
    if not rates:
        return ""
    found = [calibration(figures, place),
             table(["workload"] + list(shown.values()), rates)]
    if ratios:
        titles = {p.ident: p.title for p in peers_.standard()}
        found.append(table(["workload", "as a multiple"] + [
            "of " + titles[p] for p in remote.OTHERS], ratios))
    return "\n\n".join(found)


def published_table(figures):
    """What encryption leaves of a plain image's rate: an operator's own
    figures, and ours on a link that is as fast as his."""
    place, rows = remote.PLACES[0], []
    for w in remote.WORKLOADS:
        theirs = remote.PUBLISHED.get(w.name)
        plain = place_rate(figures, place, w, remote.PLAIN)
        if not theirs or not plain:
            continue
        rows.append([label(w), "{:,g}".format(theirs[0])]
                    + ["%.2f" % (t / theirs[0]) for t in theirs[1:]]
                    + ["{:,.0f}".format(plain.median)])
        for p in (remote.QEMU_LUKS, remote.LIBRBD, peers_.PLUGIN,
                  peers_.OPENSSL):
            rate = place_rate(figures, place, w, p)
            rows[-1].append(text_of(rate and rate / plain, 2).split(" ")[0])
    return table(
        ["of the plain image's rate", "an operator: plain", "QEMU LUKS",
         "librbd", "here: plain", "QEMU LUKS", "librbd", "this plugin",
         "openssl engine"], rows) if rows else ""


REMOTE = """The cluster is in a network namespace of its own, at the other end of a link that
delays and limits what goes each way; images have %d MiB, a cell takes %g s. The
first link was set so that on idle processors fio's rbd engine reads a plain image
as fast as an operator's virtual machine, with processors of its own, read from his
cluster (1M, depth 1 and 8). The OSD still shares the processors: small requests
stay limited by them. His disks write more slowly than this memory. His QEMU LUKS
and librbd ran inside QEMU, these run inside qemu-nbd."""
README_REMOTE = """Ceph beyond a link of %s (delay and limit set so that a
plain image is read as fast as by an operator on his own cluster): his published
figures, and the same on that link. Encrypted images are shown as shares of the plain
one's rate:"""


def remote_text(figures):
    tables = [place_table(figures, place) for place in remote.PLACES]
    if not any(tables):
        return ""
    identity = figures.results["identity"]
    head = REMOTE % (min(identity["image_mib"], remote.IMAGE >> 20),
                     min(identity["seconds"], remote.SECONDS))
    return "\n\n".join(filter(None, [
        head, published_table(figures), *tables]))


def guest_rate(figures, w, disk, section="guest"):
    return figures.of(section, "%s|%s" % (w.name, disk.ident), "rate",
                      w.rate(1))


def guest_disks(figures, section="guest"):
    """Those that were measured."""
    import guest
    disks = guest.disks()
    known = [d.ident for d in disks]
    titles = figures.results["peers"]
    for name in figures.results.get(section, {}):
        ident = name.partition("|")[2]
        if ident not in known and name.partition("|")[0] != "link":
            known.append(ident)
            variant = ident.replace("guest-", "", 1)
            disks.append(guest.Disk(ident, "NBD to " + titles[variant],
                                    peers_.Rbdcrypt(variant, "", "luks2")))
    return [d for d in disks
            if any(guest_rate(figures, w, d, section)
                   for w in guest.WORKLOADS)]


def guest_table(figures, section="guest"):
    """Rates, and ours as multiples of the others'."""
    import guest
    disks = guest_disks(figures, section)

    def rate(w, disk):
        return guest_rate(figures, w, disk, section)
    others = [d for d in disks if not d.serves]
    rates = [[label(w)] + [text_of(rate(w, d)) for d in disks]
             for w in guest.WORKLOADS]
    rates = [r for r in rates if any(r[1:])]
    ratios = []
    for d in (d for d in disks if d.serves):
        for w in guest.WORKLOADS:
            some = [(rate(w, d), rate(w, o)) for o in others]
            if any(a and b for a, b in some):
                ratios.append([label(w), d.title] + [
                    (a / b).text(2) if a and b else "" for a, b in some])
    return "%s\n\n%s" % (
        table(["workload"] + [d.title for d in disks], rates),
        table(["workload", "as a multiple"] + [
            "of " + o.title for o in others], ratios)) if rates else ""


def remote_guest_text(figures):
    some = guest_table(figures, "remote-guest")
    return some and "%s\n\n%s" % (
        calibration(figures, remote.PLACES[0], "remote-guest"), some)


def trim_table(figures):
    import trim
    rows = []
    for d in trim.disks():
        some = [figures.of("trim", d.ident, what, 1 / (1 << 20))
                for what in ("full", "trimmed", "exact")]
        if all(some):
            rows.append([d.title] + [s.text() for s in some])
    return "MiB that a thin image takes in the cluster (`rbd du`), measured " \
        "once: with %d MiB of files on ext4 in a guest, and after every " \
        "other of the %d was deleted, and `fstrim`.\n\n%s" % (
            trim.FILES * trim.FILE_MIB, trim.FILES,
            table(["disk", "full", "trimmed", "trimmed, to the byte"],
                  rows)) if rows else ""


def guest_costs(figures):
    """CPU of QEMU, the guest in it, and the server."""
    import guest
    disks = guest_disks(figures)
    rows = []
    for w in guest.WORKLOADS:
        row = [figures.cost(w, d.ident, ("qemu_cpu", "server_cpu"), "guest")
               for d in disks]
        if any(row):
            rows.append([label(w)] + [
                text_of(c, 2 if w.unit == "MiB/s" else 0) for c in row])
    return "CPU of QEMU and, where there is one, the server. %s\n\n%s" % (
        UNITS, table(["workload"] + [d.title for d in disks], rows)) \
        if rows else ""


def settings(results):
    some = results.get("settings")
    return "Settings that this plugin makes itself, and fio's “our settings”" \
        " with it: %s." % ", ".join(
            "`%s=%s`" % s for s in sorted(some.items())) if some else ""


def sections(results):
    figures = Figures(results)
    beyond = remote_text(figures)
    if beyond:
        yield "## The cluster beyond a link\n\n" + beyond
    yield target_table(results, peers_.PLUGIN)
    if peers_.OPENSSL in figures.peers:
        yield target_table(results, peers_.OPENSSL)
    if figures.results["cells"] and peers_.PLUGIN in figures.peers:
        yield "## Ratios\n\n" + ratios(figures, peers_.PLUGIN)
    if figures.results["cells"]:
        yield "## Rates\n\n" + cell_table(
            figures, lambda w, p: text_of(figures.rate(w, p)))
        yield "## Latencies\n\nMilliseconds: p50 / p99 / p99.9, of reads " \
            "where a row has both, %s.\n\n" % LATENCIES[
                results["identity"].get("latency", "completion")] \
            + cell_table(figures, lambda w, p: latencies(figures, w, p))
        yield "## CPU\n\n" + UNITS + " Server / client / OSD; what fio " \
            "needs to start and end is not in it.\n\n" \
            + cell_table(figures, lambda w, p: costs(figures, w, p))
    for head, some in (
            ("Memory and threads", memory_table(figures)),
            ("Attach", attach_table(figures)),
            ("Whole images", copies_table(figures)),
            ("Several images at once", crowd_table(figures)),
            ("Many exports of one server", fleet_table(figures)),
            ("In a guest", guest_table(figures)),
            ("CPU in a guest", guest_costs(figures)),
            ("In a guest, the cluster beyond a link",
             remote_guest_text(figures)),
            ("TRIM", trim_table(figures))):
        if some:
            yield "## %s\n\n%s" % (head, some)
    if "rbdcrypt-tcmalloc" in figures.peers:
        yield target_table(results, "rbdcrypt-tcmalloc")
    yield settings(results)


def text(results, charts=()):
    identity = results["identity"]
    head = HEAD % dict(
        identity, date=results["date"], minutes=results["minutes"],
        flushes=FLUSHES if "flushes" in identity else "",
        where="The cluster is not this benchmark's own." if
        identity.get("pool") else "Client, server and OSD share the machine.",
        partial="" if results["full"] else ", a part only",
        machine="\n".join("- %s: %s" % item
                          for item in results["machine"].items()))
    body = [head.strip()]
    body += ["![%s](%s)" % (words, name) for name, words in charts]
    body += ["%s is missing: %s." % item
             for item in sorted(results["missing"].items())]
    body += ["The part `%s` was measured at commit %s on %s." % (
        part, one["commit"], one["date"])
        for part, one in sorted(results.get("later", {}).items())]
    body += [s for s in sections(results) if s]
    return "\n\n".join(body) + "\n"


def readme_guest(figures):
    """What README shows of the guest: medians."""
    import guest
    standard = [d.ident for d in guest.disks()]
    disks = [d for d in guest_disks(figures) if d.ident in standard]
    words = {"guest-plain": "QEMU, rbd, no encryption",
             "guest-luks": "QEMU `luks` over `rbd`",
             "guest-librbd": "QEMU, librbd decrypts",
             "guest-nbd": "this plugin, NBD",
             "guest-cinder": "this plugin, NBD, QEMU's LUKS"}
    rows = []
    for w in guest.WORKLOADS:
        some = [guest_rate(figures, w, d) for d in disks]
        if all(some):
            rows.append([label(w)] + ["{:,.0f}".format(s.median)
                                      for s in some])
    return table(["in the guest"] + [words[d.ident] for d in disks], rows)


def readme_ratios(figures):
    """And of the rest: how many times as fast as others."""
    others = [("qemu-luks2", "qemu-nbd, librbd decrypts"),
              ("qemu-luks2-slim", "the same, image without fast-diff"),
              ("qemu-luks1", "qemu-nbd, QEMU `luks`"),
              ("qemu-plain", "qemu-nbd, no encryption")]
    rows = []
    for w in README_ROWS:
        some = [figures.ratio(w, peers_.PLUGIN, p) for p, _ in others]
        limit, rate = figures.limit(w), figures.rate(w, peers_.PLUGIN)
        if rate:
            rows.append([label(w).replace(", " + w.unit, "")] + [
                "%.2f" % s.median if s else "" for s in some] + [
                "%.2f" % (rate / limit).median if limit else ""])
    return table(["this plugin, as a multiple of"] + [
        words for _, words in others] + ["the limit"], rows)


def readme(results):
    """The tables that README has between two marks."""
    figures = Figures(results)
    beyond = published_table(figures)
    return "\n\n".join(filter(None, (
        beyond and README_REMOTE % remote.PLACES[0].title, beyond,
        readme_guest(figures), readme_ratios(figures)))) + "\n"


def json_text(results):
    """One line for each cell: readable as a difference."""
    def lines(what):
        if not isinstance(what, dict) or not what:
            return json.dumps(what, sort_keys=True)
        return "{\n%s\n}" % ",\n".join(
            "  %s: %s" % (json.dumps(k), json.dumps(what[k], sort_keys=True))
            for k in sorted(what))
    return "{\n%s\n}\n" % ",\n".join(
        "%s: %s" % (json.dumps(k), lines(results[k]))
        for k in sorted(results))


def write(results, out):
    """RESULTS.md, results.json and the charts; what could not be drawn, in
    words."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "results.json"), "w") as f:
        f.write(json_text(results))
    trouble, drawn = None, []
    try:
        import charts
        drawn = charts.draw(results, out)
    except ImportError:
        trouble = "no charts: python3-matplotlib is not installed"
    with open(os.path.join(out, "RESULTS.md"), "w") as f:
        f.write(text(results, drawn))
    with open(os.path.join(out, "readme.md"), "w") as f:
        f.write(readme(results))
    return trouble
