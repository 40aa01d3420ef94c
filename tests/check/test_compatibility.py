"""The installed versions against the tested ones, here of made-up packages."""

import sys

import pytest
from conftest import ROOT

from reasoning_ext.check.compatibility import LOWEST, version_findings

VERSIONS = {"trl": "1.16.0", "transformers": "5.23.0", "peft": "0.21.2", "datasets": "5.2.0", "bitsandbytes": "0.50.2"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs the packages above, with changes, and takes everything else away."""

    def install(**changes):
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        for name, number in (VERSIONS | changes).items():
            if number is not None:
                folder = tmp_path / f"{name}-{number}.dist-info"
                folder.mkdir()
                (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")

    return install


@pytest.mark.parametrize(
    ("changes", "backend", "quantized", "expected"),
    [
        ({}, "trl", True, []),
        ({"trl": "1.14.0"}, "trl", False, []),
        ({"trl": "1.17.0.dev0"}, "trl", False, ["warning"]),
        ({"trl": "1.15.0"}, "trl", False, ["warning"]),
        ({"trl": "1.13.0"}, "trl", False, ["error"]),
        ({"peft": None}, "trl", False, ["error"]),
        ({"peft": "unknown", "trl": "unknown"}, "trl", False, []),
        ({"bitsandbytes": None}, "trl", True, ["error"]),
        ({}, "unsloth", False, ["note"]),
        ({"unsloth": "2026.10.9"}, "unsloth", False, ["error"]),
        ({"unsloth": "2026.10.9", "trl": "1.15.0"}, "unsloth", False, []),
        ({"unsloth": "2026.10.9", "trl": "1.17.0"}, "trl", False, ["warning"]),
    ],
)
def test_versions_outside_of_what_was_tested_are_named(installed, changes, backend, quantized, expected):
    installed(**changes)
    found = version_findings(backend, False, quantized)
    assert [finding.level for finding in found] == expected
    assert all(number in finding.text for number in changes.values() if number for finding in found if "1.1" in number)


def test_the_lowest_versions_are_those_that_the_package_asks_for(installed):
    text = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{package}>={lowest}' in text for package, lowest in LOWEST.items())
    installed()
    assert [finding.level for finding in version_findings("trl", True)] == ["note"]  # no vLLM here
