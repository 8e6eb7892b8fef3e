"""The bill of materials names what is installed and required, each once, and nothing that is not."""

from importlib.metadata import PackageNotFoundError, distribution, version

import pytest
from packaging.requirements import Requirement

from tools.bom import bill


def test_the_bill_names_what_stabdeq_requires_and_what_that_requires() -> None:
    made = bill()
    assert made["bomFormat"] == "CycloneDX"
    assert made["metadata"]["component"]["name"] == "stabdeq"
    found = {one["bom-ref"]: one["version"] for one in made["components"]}
    assert len(found) == len(made["components"])
    assert found["torch"] == version("torch")
    needed = [Requirement(line) for line in distribution("stabdeq").requires or ()]
    direct = {one.name for one in needed if one.marker is None}
    assert direct <= found.keys()
    assert {"markupsafe"} <= found.keys()  # of a requirement's requirement
    assert "pytest" not in found
    (own,) = [one for one in made["dependencies"] if one["ref"] == "stabdeq"]
    assert direct <= set(own["dependsOn"])
    refs = {one["ref"] for one in made["dependencies"]}
    assert refs == {"stabdeq", *found}
    assert all(set(one["dependsOn"]) <= refs for one in made["dependencies"])


def test_what_is_not_installed_is_told() -> None:
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        bill("no-such-package")
