# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's machine protocol."""

import json
import socket


class Qmp:
    """qmp(COMMAND, **ARGUMENTS) -> what QEMU returns."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.file.write(json.dumps({"execute": command,
                                    "arguments": arguments}) + "\n")
        self.file.flush()
        reply = {"event": ""}
        while "event" in reply:
            reply = json.loads(self.file.readline())
        return reply["return"]

    def close(self):
        self.file.close()
        self.socket.close()
