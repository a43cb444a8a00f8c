# SPDX-License-Identifier: BSD-3-Clause
"""Programs in C, beside the tests, of which each is compiled once."""

import functools
import os

from lab.command import run
from lab.settings import HERE


@functools.lru_cache
def compiled(name, directory, *flags):
    """NAME.c as the program DIRECTORY/NAME."""
    path = os.path.join(directory, name)
    source = os.path.join(HERE, name.removesuffix(".so") + ".c")
    run("cc", "-std=gnu17", "-O2", "-Wall", "-o", path, source, *flags)
    return path


def preload(name, directory, **variables):
    """The environment of a process that NAME.c is loaded into."""
    library = compiled(name + ".so", directory, "-shared", "-fPIC")
    return {"LD_PRELOAD": library, **variables}
