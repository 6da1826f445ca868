"""docs/openapi.yaml agrees with the code; tests/e2e/test_openapi.py holds it against a running server."""

import re

import pytest
import yaml

from cifar.common.project import ROOT
from cifar.server.desired_state import is_version

DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
VERSIONS = ["1.0", "mlflow-7", "2.0-eu.1", "a" * 50, "a" * 51, "1_0", "-1", ".1", "", "1 0", "1/0", "é", "1:0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_document_has_the_versions_that_can_be_deployed(version):
    parameters = DOCUMENT["paths"]["/predictions/cifar/{version}"]["post"]["parameters"]
    [pattern] = [parameter["schema"]["pattern"] for parameter in parameters if parameter.get("name") == "version"]
    assert (re.search(pattern, version) is not None) == is_version(version)
