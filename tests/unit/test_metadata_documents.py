"""NIP-11 documents that text and jsonb cannot hold as they are."""

import json
import math
from typing import Any

import pytest

from metadata_rows import ORIGINAL_JSON, storable_document


def test_ordinary_documents_pass_unaltered() -> None:
    document = {"name": "ö\u2028\\u0000", "limitation": {"max": 5, "f": [1.5, None, True]}}
    assert storable_document(document) == document


@pytest.mark.parametrize(
    ("document", "clean"),
    [
        ({"name": "a\0b"}, {"name": "a\ufffdb"}),
        ({"name": "\ud800x"}, {"name": "\ufffdx"}),
        ({"limitation": {"a\0": ["\0"]}}, {"limitation": {"a\ufffd": ["\ufffd"]}}),
        ({"limitation": {"a": math.inf}}, {"limitation": {"a": None}}),
        ({"limitation": {"a": math.nan}}, {"limitation": {"a": None}}),
    ],
)
def test_what_must_be_replaced_is_kept_as_text(
    document: dict[str, Any], clean: dict[str, Any]
) -> None:
    stored = storable_document(document | {"extra_fields": {"own": 1}})
    original = stored["extra_fields"].pop(ORIGINAL_JSON)
    assert stored == clean | {"extra_fields": {"own": 1}}
    assert repr(json.loads(original)) == repr(document | {"extra_fields": {"own": 1}})


def test_bottomless_documents_keep_their_plain_fields() -> None:
    bottomless: list[Any] = []
    for _ in range(100_000):
        bottomless = [bottomless]
    stored = storable_document({"name": "deep", "limitation": {"x": bottomless}})
    assert stored == {"name": "deep", "extra_fields": {ORIGINAL_JSON: "nested too deep"}}
