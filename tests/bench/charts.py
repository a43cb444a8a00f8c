# SPDX-License-Identifier: BSD-3-Clause
"""Charts as SVG, the same bytes for the same results."""

import os

import matplotlib
from figures import Figures
from peers import HOP, PLUGIN
from workloads import QUICK

matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.hashsalt": "rbdcrypt", "svg.fonttype": "none", "font.size": 9,
    "font.family": "sans-serif", "axes.spines.top": False,
    "axes.spines.right": False})
from matplotlib import pyplot  # noqa: E402

GREY, OURS, LIMIT = "#8a9099", "#c4501b", "#2f6db5"
GUEST = (("guest-plain", "QEMU rbd plain"),
         ("guest-luks", "QEMU LUKS over rbd"),
         ("guest-librbd", "librbd inside QEMU"),
         ("guest-nbd", "NBD to rbdcrypt"),
         ("guest-cinder", "the same, QEMU LUKS1"))


def bars(axes, title, unit, bars_):
    """BARS_: (label, Spread, colour), the first one on top."""
    bars_ = bars_[::-1]
    medians = [s.median for _, s, _ in bars_]
    axes.barh([b[0] for b in bars_], medians,
              color=[b[2] for b in bars_], height=0.7,
              xerr=[[s.median - s.low for _, s, _ in bars_],
                    [s.high - s.median for _, s, _ in bars_]],
              error_kw={"elinewidth": 0.8, "ecolor": "#333333"})
    for y, (_, s, _) in enumerate(bars_):
        axes.text(s.high, y, " %.0f" % s.median, va="center", fontsize=8)
    axes.set_title("%s, %s" % (title, unit), fontsize=9, loc="left")
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)


def save(figure, path):
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def panels(count):
    figure, axes = pyplot.subplots(
        (count + 1) // 2, 2, figsize=(9, 2.6 * ((count + 1) // 2)),
        layout="constrained", squeeze=False)
    some = list(axes.flat)
    for extra in some[count:]:
        extra.set_visible(False)
    return figure, some


def colour(peer):
    return OURS if peer == PLUGIN else \
        LIMIT if peer.startswith("fio") else GREY


def rates(figures, path):
    """What decides most of the targets."""
    rows = [w for w in QUICK if figures.rate(w, PLUGIN)]
    if not rows:
        return False
    figure, some = panels(len(rows))
    for axes, w in zip(some, rows):
        bars(axes, w.name, w.unit, [
            (figures.peers[p], figures.rate(w, p), colour(p))
            for p in figures.peers if p != HOP and figures.rate(w, p)])
    save(figure, path)
    return True


def depths(figures, path):
    """The operator's table: rates over depths."""
    peers = [p for p in ("qemu-plain", "qemu-luks2", "qemu-luks1", PLUGIN,
                         "fio-default") if p in figures.peers]
    kinds = []
    for w in figures.rows:
        kind = (w.size, w.rw)
        depths_ = {v.depth for v in figures.rows
                   if (v.size, v.rw) == kind and v.connections == 1}
        if kind not in kinds and len(depths_) > 1:
            kinds.append(kind)
    if not kinds:
        return False
    figure, some = panels(len(kinds))
    for axes, (size, rw) in zip(some, kinds):
        row = [w for w in figures.rows
               if (w.size, w.rw, w.connections) == (size, rw, 1)]
        for p, style in zip(peers, ("--", ":", "-.", "-", "-")):
            points = [(w.depth, figures.rate(w, p).median) for w in row
                      if figures.rate(w, p)]
            if points:
                axes.plot(*zip(*points), style, marker=".",
                          color=colour(p), label=figures.peers[p])
        axes.set_xscale("log", base=2)
        axes.set_xticks([w.depth for w in row],
                        [str(w.depth) for w in row])
        axes.set_ylim(bottom=0)
        axes.set_title("%s %s by depth, %s" % (size, rw, row[0].unit),
                       fontsize=9, loc="left")
    some[0].legend(fontsize=7, frameon=False)
    save(figure, path)
    return True


def guest(figures, path):
    from guest import WORKLOADS
    rows = [w for w in WORKLOADS
            if figures.of("guest", w.name + "|guest-nbd", "rate")]
    if not rows:
        return False
    figure, some = panels(len(rows))
    for axes, w in zip(some, rows):
        found = [(words, figures.of("guest", "%s|%s" % (w.name, ident),
                                    "rate", w.rate(1)),
                  OURS if ident in ("guest-nbd", "guest-cinder") else GREY)
                 for ident, words in GUEST]
        bars(axes, "in a guest: " + w.name, w.unit,
             [b for b in found if b[1]])
    save(figure, path)
    return True


DRAWN = (("rates.svg", "Rates of all peers", rates),
         ("depths.svg", "Rates by depth", depths),
         ("guest.svg", "Rates in a guest", guest))


def draw(results, out):
    """[(file, words)] of what was drawn in OUT."""
    figures = Figures(results)
    found = []
    for name, words, one in DRAWN:
        path = os.path.join(out, name)
        if one(figures, path):
            found.append((name, words))
        elif os.path.exists(path):
            os.unlink(path)
    return found
