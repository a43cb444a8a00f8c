# SPDX-License-Identifier: BSD-3-Clause
"""The table that the run prints: see lab/classes.py.  Runs last."""


def test_every_failure_of_every_provider_was_seen(classes):
    assert classes.missing() == []
