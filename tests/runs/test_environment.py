"""What a run says of its machine: enough to repeat it, nothing of who ran it."""

import getpass
import json
import platform

from hubel.runs.environment import environment


def test_versions_machine_and_command():
    record = environment()
    assert record["versions"]["torch"].split("+")[0].count(".") == 2
    assert record["versions"]["python"] == platform.python_version()
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["memory_gib"] > 0
    assert record["command"]


def test_plain_json_without_host_or_user():
    text = json.dumps(environment()["machine"])
    assert platform.node() not in text.split('"')
    assert getpass.getuser() not in text.split('"')
