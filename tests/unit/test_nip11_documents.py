"""NIP-11 documents as found, made fit for nostr-tools and for jsonb without losing a field."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import MessageMalformed
from nostr.json_text import decode_exactly
from nostr.nip11 import normalize_nip11

SHARED_CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


@pytest.mark.parametrize(
    ("document", "known", "extra"),
    [
        ({"name": "a", "contact": ""}, {"name": "a", "contact": ""}, None),
        ({"name": None, "software": "s"}, {"software": "s"}, None),
        ({"name": 5, "version": "1"}, {"version": "1"}, {"name": 5}),
        ({"supported_nips": [1, "50"]}, {"supported_nips": [1, "50"]}, None),
        (
            {"supported_nips": [1, True, "x", 1.5, None]},
            {"supported_nips": [1, "x"]},
            {"supported_nips": [1, True, "x", 1.5, None]},
        ),
        ({"supported_nips": "1,2"}, {}, {"supported_nips": "1,2"}),
        ({"supported_nips": []}, {}, None),
        ({"limitation": {"max_limit": 5}}, {"limitation": {"max_limit": 5}}, None),
        ({"limitation": {}}, {}, None),
        ({"limitation": [1], "name": "a"}, {"name": "a"}, {"limitation": [1]}),
        ({"retention": [{"time": 1}]}, {}, {"retention": [{"time": 1}]}),
        ({"name": "a", "x": None, "fees": {}}, {"name": "a"}, {"x": None, "fees": {}}),
        ({"name": "a", "extra_fields": {"b": 1}}, {"name": "a"}, {"extra_fields": {"b": 1}}),
        ({"name": "a\0b\ud800"}, {"name": "a\ufffdb\ufffd"}, None),
        ({"name": "a", "k\0": ["\0"]}, {"name": "a"}, {"k\ufffd": ["\ufffd"]}),
    ],
)
def test_every_field_has_a_place(
    document: dict[str, Any], known: dict[str, Any], extra: dict[str, Any] | None
):
    nip11 = normalize_nip11(document)
    fields = {name: value for name, value in nip11.to_dict().items() if value is not None}
    assert fields.pop("extra_fields", None) == extra
    assert fields == known


@pytest.mark.parametrize("document", [None, [], "x", {}, {"error": "none"}, {"negentropy": 1}])
def test_what_is_no_document_is_malformed(document: object):
    with pytest.raises(MessageMalformed):
        normalize_nip11(document)


def test_numbers_that_no_column_holds_become_text():
    document = decode_exactly(b'{"name":"a","fees":[1e999,1.5,99999999999999999999]}')
    extra = normalize_nip11(document).extra_fields
    assert extra == {"fees": ["1e999", 1.5, 1e20]}
    assert json.loads(json.dumps(extra, allow_nan=False)) == extra


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
NAMES = st.sampled_from(["name", "pubkey", "supported_nips", "limitation", "fees", "tags", "x"])


@given(st.dictionaries(NAMES, VALUES))
def test_any_object_is_a_valid_document_or_malformed(document: dict[str, Any]):
    try:
        nip11 = normalize_nip11(document)
    except MessageMalformed:
        return
    assert nip11.is_valid
    text = json.dumps(nip11.to_dict(), allow_nan=False)
    assert "\\u0000" not in text


def test_every_document_of_the_corpus_keeps_its_fields():
    path = SHARED_CORPUS / "nip11_documents.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        document = json.loads(line)["doc"]
        nip11 = normalize_nip11(document)
        kept = {**(nip11.extra_fields or {})}
        kept |= {name: value for name, value in nip11.to_dict().items() if value is not None}
        for name, value in document.items():
            if value not in (None, [], {}):
                assert kept[name] == value or name in nip11.extra_fields
