"""Each setting is declared once and completely."""

from __future__ import annotations

import dataclasses
import re

import pytest

from penstock.kernel.messages import REQUEST_TOPICS, Topic
from penstock.kernel.setting_spec import SPEC_KEY, SettingSpec, SettingUnit
from penstock.kernel.settings import TOP_LEVEL_SECTIONS, DenseModelSettings, KafkaSettings, Settings

SECTIONS = [(section.name, section.default_factory) for section in dataclasses.fields(Settings)]
TEXTS = (SettingUnit.TEXT, SettingUnit.SECRET, SettingUnit.ADDRESS)
FIELDS = [
    pytest.param(field, id=f"{section}.{field.name}")
    for section, record in SECTIONS
    for field in dataclasses.fields(record)
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_says_its_name_its_bounds_and_its_meaning(field: dataclasses.Field) -> None:
    spec = field.metadata[SPEC_KEY]
    assert isinstance(spec, SettingSpec)
    assert re.fullmatch("[A-Z][A-Z0-9_]+", spec.env)
    assert spec.doc
    assert not spec.doc.endswith(".")
    assert spec.at_least <= spec.at_most


@pytest.mark.parametrize("field", FIELDS)
def test_a_default_obeys_its_own_bounds(field: dataclasses.Field) -> None:
    spec, default = field.metadata[SPEC_KEY], field.default
    if spec.unit in TEXTS:
        assert isinstance(default, str)
        assert not spec.choices or default in spec.choices
    else:
        assert spec.at_least <= default <= spec.at_most


@pytest.mark.parametrize("field", FIELDS)
def test_a_default_has_the_type_its_unit_asks_for(field: dataclasses.Field) -> None:
    unit = field.metadata[SPEC_KEY].unit
    expected = {
        SettingUnit.DURATION: float,
        SettingUnit.NUMBER: float,
        SettingUnit.FLAG: bool,
        **dict.fromkeys(TEXTS, str),
    }.get(unit, int)
    assert type(field.default) is expected
    assert field.type == expected.__name__


def test_environment_names_are_unique() -> None:
    names = [field.metadata[SPEC_KEY].env for _, record in SECTIONS for field in dataclasses.fields(record)]
    assert len(names) == len(set(names))


def test_sections_at_the_top_of_the_file_exist() -> None:
    assert {name for name, _ in SECTIONS} >= TOP_LEVEL_SECTIONS.keys()


def test_a_secret_is_not_shown_with_its_record() -> None:
    changed = dataclasses.replace(Settings(), dense_model=DenseModelSettings(kind="openai", api_key="sk-secret"))
    assert "sk-secret" not in repr(changed)
    assert "openai" in repr(changed)


def test_settings_cannot_be_changed_after_the_edge() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.bus.buffer_size = 1
    assert dataclasses.replace(settings.bus, buffer_size=1).buffer_size == 1


def test_the_spec_s_names_and_defaults_stand() -> None:
    promised = {
        "ML_EMBED_WORKERS": 4,
        "ML_SPARSE_WORKERS": 4,
        "ML_RERANK_WORKERS": 2,
        "ML_MAX_INFLIGHT": 8,
        "SEARCH_WORKERS": 16,
        "SEARCH_QUEUE_SIZE": 1000,
        "INDEX_WORKERS": 8,
        "INDEX_QUEUE_SIZE": 10_000,
        "CHUNK_WORKERS": 4,
        "BUS_HANDLERS_PER_TOPIC": 100,
        "BUS_BUFFER_SIZE": 1000,
        "BUS_PUBLISH_TIMEOUT": 5.0,
        "BUS_BACKEND": "memory",
        "HTTP_MAX_CONCURRENT": 1000,
        "PENSTOCK_MAX_BODY": 10_000_000,
        "PENSTOCK_MAX_BATCH": 100,
        "QDRANT_POOL_SIZE": 32,
        "REDIS_POOL_SIZE": 20,
    }
    found = {
        field.metadata[SPEC_KEY].env: field.default for _, record in SECTIONS for field in dataclasses.fields(record)
    }
    assert {name: found.get(name) for name in promised} == promised


def test_topics_of_requests_are_topics() -> None:
    assert set(REQUEST_TOPICS) < set(Topic)


def test_a_setting_of_a_named_part_has_two_names_and_a_general_one_has_one() -> None:
    assert SettingSpec("QDRANT_URL", "").env_names == ("PENSTOCK_QDRANT_URL", "QDRANT_URL")
    assert SettingSpec("PENSTOCK_PORT", "").env_names == ("PENSTOCK_PORT",)


def test_brokers_are_told_without_what_may_be_a_secret() -> None:
    assert KafkaSettings(bootstrap="a:9092,b:9092").display_address == "a:9092,b:9092"
    assert KafkaSettings(bootstrap="user:password@a:9092").display_address == "***"
