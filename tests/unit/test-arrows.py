#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""arrows: which file uses which, as the linker sees it.

  tests/unit/test-arrows.py [BUILD]            fail on an arrow up between
                                               directories, or on a circle
                                               between files
  tests/unit/test-arrows.py [BUILD] --print    "FILE FILE SYMBOL..." for each arrow
  tests/unit/test-arrows.py [BUILD] --dot      the same for graphviz

BUILD is where make ran, by default the working directory.
"""
import collections
import os
import subprocess
import sys

# A directory may use those that follow its name here, and itself.
DIRECTORIES = {
    "base": (),
    "luks": ("base",),
    "keys": ("base",),
    "image": ("luks", "base"),
    "serve": ("image", "keys", "luks", "base"),
    "nbd": ("serve", "image", "keys", "luks", "base"),
    "admin": ("image", "keys", "luks", "base"),
}


def objects(build):
    """{name of a source without .c: its object}"""
    found = {}
    top = os.path.join(build, "plugin")
    for here, _, files in os.walk(top):
        for f in files:
            if f.endswith(".o"):
                source = os.path.relpath(os.path.join(here, f[:-2]), top)
                found[source.replace(".libs/", "")] = os.path.join(here, f)
    return found


def symbols(path):
    """What an object defines for others, and what it wants."""
    defined, wanted = set(), set()
    for line in subprocess.run(["nm", "-gP", path], check=True,
                               stdout=subprocess.PIPE,
                               text=True).stdout.splitlines():
        name, kind = line.split()[:2]
        if kind in "Uvw":
            wanted.add(name)
        else:
            defined.add(name)
    return defined, wanted


def arrows(found):
    """{(user, used): symbols}"""
    of = {name: symbols(path) for name, path in found.items()}
    home = {s: name for name, (defined, _) in of.items() for s in defined}
    drawn = collections.defaultdict(list)
    for name, (_, wanted) in of.items():
        for s in sorted(wanted):
            if s in home and home[s] != name:
                drawn[name, home[s]].append(s)
    return drawn


def circles(drawn):
    """Sets of files that reach each other (Tarjan, 1972)."""
    after = collections.defaultdict(set)
    for user, used in drawn:
        after[user].add(used)
    index, low, stack, result = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(after[v]):
            if w not in index:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == index[v]:
            i = stack.index(v)
            if len(stack) - i > 1:
                result.append(set(stack[i:]))
            del stack[i:]

    for v in sorted(after):
        if v not in index:
            visit(v)
    return result


def main(argv):
    words = [a for a in argv if not a.startswith("--")]
    options = set(argv) - set(words)
    if options - {"--print", "--dot"} or len(words) > 1:
        sys.exit(__doc__)
    found = objects(words[0] if words else ".")
    if not found:
        sys.exit("arrows: no object below plugin/: run make there first")
    drawn = arrows(found)
    if "--print" in options:
        for (user, used), names in sorted(drawn.items()):
            print(user, used, *names)
        return 0
    if "--dot" in options:
        print("digraph arrows {")
        for user, used in sorted(drawn):
            print('  "%s" -> "%s";' % (user, used))
        print("}")
        return 0
    wrong = 0
    for (user, used), names in sorted(drawn.items()):
        above, below = user.split("/")[0], used.split("/")[0]
        if above != below and below not in DIRECTORIES[above]:
            print("%s uses %s of %s, a directory that it must not know"
                  % (user, ", ".join(names), used))
            wrong = 1
    for circle in circles(drawn):
        print("a circle: " + ", ".join(sorted(circle)))
        for (user, used), names in sorted(drawn.items()):
            if {user, used} <= circle:
                print("  %s uses %s of %s" % (user, ", ".join(names), used))
        wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
