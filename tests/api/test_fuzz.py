"""The OpenAPI document against the API: no 5xx, no undeclared answer, what is wrong is refused.

The live stream is left out: its answer has no end. Everything else is called with well-formed and
ill-formed requests that are made from the document alone.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.api.served import Served, served
from tests.vectors import make_api

EXAMPLES_MAX = 20
TIMEOUT_S = 10

# Opaque cursors, "a version or a time", patches that fit the document: no schema can say these.
INEXPRESSIBLE: list[schemathesis.CheckFunction] = [positive_data_acceptance]
# AWS's own clients add query fields that they do not document, so unknown ones are ignored there.
AWS: list[schemathesis.CheckFunction] = [*INEXPRESSIBLE, negative_data_rejection]

DOCUMENT = msgspec.json.decode(asyncio.run(make_api.document()))
# What is wrong may also be too large, or stand behind a precondition that does not hold.
REFUSED = [400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 428, 429, 431]
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG).exclude(operation_id="watchShadow")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fuzz"), things=("hall-thermostat", "home-7-gateway")) as where:
        yield where


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES_MAX,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_nothing_comes_back_that_the_document_does_not_declare(case: schemathesis.Case[Any], where: Served):
    headers = {"Authorization": f"Bearer {where.token}"}
    excluded = AWS if case.operation.definition.raw["operationId"].startswith("aws") else INEXPRESSIBLE
    case.call_and_validate(base_url=where.url, headers=headers, timeout=TIMEOUT_S, excluded_checks=excluded)
