# SPDX-License-Identifier: BSD-3-Clause
"""Replies that other KMIP servers than the tests' own give, and names that
cannot be seen."""

import pytest

from lab import PASSPHRASE
from lab.kmip_server import (GET, GET_ATTRIBUTES, in_turn, item, key, reply,
                             state)
from lab.servers import names, served

STRUCTURE, ENUMERATION, TEXT = 1, 5, 7
KEY = PASSPHRASE


@pytest.fixture
def profile(kmip, profiles_file):
    """profile(**members) -> profiles= of a file with the profile "t"."""
    return lambda **members: profiles_file(t=kmip.profile(**members))


def attribute(name, kind, value):
    return item(0x420008, STRUCTURE, [item(0x42000a, TEXT, name),
                                      item(0x42000b, kind, value)])


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_attribute_that_nobody_asked_for(servers, images, kmip, profile,
                                         first):
    """Some servers add the object's type to the State."""
    attributes = [attribute("Object Type", ENUMERATION, 2),
                  attribute("State", ENUMERATION, 2)]
    if not first:
        attributes.reverse()
    several = reply(GET_ATTRIBUTES, [item(0x420094, TEXT, "7"), *attributes])
    with kmip.pretending(in_turn(several, key("7", KEY))) as s:
        served(servers, images.luks(), "key=t:7", profile(address=s.address))


@pytest.mark.parametrize("attributes,word", [
    ([], "has no State"),
    ([attribute("Name", TEXT, "x")], "has no State"),
    ([attribute("State", ENUMERATION, 2)] * 2, "two States"),
    ([attribute("State", TEXT, "Active")], "wrong type"),
    ([item(0x420008, TEXT, "State")], "wrong type"),
], ids=["none", "another", "two", "text", "no structure"])
def test_state_that_is_none(servers, encrypted, kmip, profile, classes,
                            attributes, word):
    odd = reply(GET_ATTRIBUTES, [item(0x420094, TEXT, "7"), *attributes])
    with kmip.pretending(in_turn(odd, key("7", KEY))) as s:
        classes.refused(servers, "kmip", "nonsense", "nonsense", encrypted,
                        "key=t:7", profile(address=s.address), words=[word],
                        seen="an invalid State, or two of them")


def test_failure_without_a_reason_keeps_the_text(servers, encrypted,
                                                 kmip, profile,
                                                 classes):
    silent = reply(GET, status=1, text="licence expired")
    with kmip.pretending(in_turn(state("7"), silent)) as s:
        classes.refused(servers, "kmip", "nonsense", "nonsense", encrypted,
                        "key=t:7", profile(address=s.address),
                        words=["without a reason", "licence expired"])


def test_blanks_in_a_name_can_be_seen(servers, encrypted, kmip, profile):
    kmip.key(b"x" * 32, "kmip/blank", active=False)
    by_name = {"lookup": "name", "prefix": "kmip/"}
    names(servers.refused(encrypted, "key=t:blank ", profile(**by_name)),
          'the name "kmip/blank "')
    # No number: SQLite would take " 7" for 7, which exists later in a run.
    names(servers.refused(encrypted, "key=t: seven", profile()),
          'object " seven"')
