"""Which variables set a setting, and which are other programs'."""

import pytest

from penstock.cli.settings_loader import load_settings, unknown_variables
from penstock.cli.settings_schema import setting_entries
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

#: Names that conda, tcsh, Kubernetes, hosting platforms and training scripts set for purposes of their own.
OTHERS = ("HOST", "PORT", "LOG_LEVEL", "WORKER_HOST", "WORKER_PORT", "MAX_BODY", "MAX_BATCH", "LARGE_REQUEST")
OTHERS += ("RATE_LIMIT", "RATE_BURST", "TRUSTED_PROXIES", "MEMORY_LIMIT", "MODEL_DIR", "MODEL_DEVICE")
OTHERS += ("MODEL_PRECISION", "DATA_DIR")

LINKS = {
    "PENSTOCK_SERVICE_HOST": "10.0.0.5",
    "PENSTOCK_SERVICE_PORT": "8080",
    "PENSTOCK_SERVICE_PORT_HTTP": "8080",
    "PENSTOCK_PORT": "tcp://10.0.0.5:8080",
    "PENSTOCK_PORT_8080_TCP": "tcp://10.0.0.5:8080",
    "PENSTOCK_PORT_8080_TCP_PROTO": "tcp",
    "PENSTOCK_PORT_8080_TCP_PORT": "8080",
    "PENSTOCK_PORT_8080_TCP_ADDR": "10.0.0.5",
    "PENSTOCK_WORKER_PORT": "tcp://10.0.0.6:8081",
    "PENSTOCK_WORKER_SERVICE_HOST": "10.0.0.6",
    "PENSTOCK_QDRANT_PORT": "tcp://10.0.0.7:6333",
}


def test_every_setting_has_a_name_with_the_prefix_that_counts_first():
    assert all(one.spec.env_names[0].startswith("PENSTOCK_") for one in setting_entries())
    names = [name for one in setting_entries() for name in one.spec.env_names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", OTHERS)
def test_a_general_name_is_read_with_the_prefix_only(name):
    assert load_settings(None, {name: "x86_64-conda-linux-gnu"}, {}).settings == Settings()
    assert f"PENSTOCK_{name}" in {one.spec.env for one in setting_entries()}


def test_the_prefixed_name_counts_where_both_are_set():
    loaded = load_settings(None, {"SEARCH_WORKERS": "many", "PENSTOCK_SEARCH_WORKERS": "3"}, {})
    assert loaded.settings.search.workers == 3
    assert loaded.origins["concurrency.search.workers"] == "environment PENSTOCK_SEARCH_WORKERS"


def test_an_empty_one_counts_as_unset():
    loaded = load_settings(None, {"SEARCH_WORKERS": "3", "PENSTOCK_SEARCH_WORKERS": " "}, {})
    assert loaded.settings.search.workers == 3


def test_a_mistyped_name_is_a_fault_with_a_suggestion():
    with pytest.raises(Invalid) as caught:
        load_settings(None, {"PENSTOCK_MAX_BODDY": "1MB", "PENSTOCK_XYZZY": "1", "PENSTOCK_EMPTY": ""}, {})
    assert "environment PENSTOCK_MAX_BODDY: is no known setting; did you mean PENSTOCK_MAX_BODY?" in caught.value.detail
    assert "environment PENSTOCK_XYZZY: is no known setting" in caught.value.detail
    assert "PENSTOCK_EMPTY" not in caught.value.detail


def test_the_value_of_an_unknown_variable_is_not_told():
    assert "hunter2" not in " ".join(unknown_variables({"PENSTOCK_QDRANT_APIKEY": "hunter2"}))


def test_variables_that_are_ours_and_no_settings_are_no_mistakes():
    assert list(unknown_variables({"PENSTOCK_COMMAND": "x", "PENSTOCK_OPTIONS": "--role api"})) == []


def test_what_kubernetes_sets_for_a_service_called_penstock_is_told_and_not_read():
    loaded = load_settings(None, LINKS, {})
    assert loaded.settings == Settings()
    assert [note.partition("=")[0] for note in loaded.warnings] == ["PENSTOCK_PORT", "PENSTOCK_WORKER_PORT"]
    assert "'tcp://10.0.0.5:8080'" in loaded.warnings[0]


def test_only_what_is_to_be_read_is_read():
    loaded = load_settings(None, {"SEARCH_WORKERS": "many", "ML_THREADS": "2"}, {}, {"concurrency.ml.threads"})
    assert (loaded.settings.search.workers, loaded.settings.ml.threads) == (16, 2)
