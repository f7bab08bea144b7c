import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.settings_loader import load_settings
from penstock.cli.settings_schema import FLAGS, setting_entries
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings

SEED = """
concurrency:
  ml:
    embed_workers: 3
    sparse_workers: 3
    rerank_workers: 1
  search:
    workers: 8
    queue_size: 500
  index:
    workers: 2
    queue_size: 100
  http:
    max_concurrent: 50
    read_timeout: 20s
    write_timeout: 1m
  bus:
    buffer_size: 10
    publish_timeout: 500ms
  qdrant:
    pool_size: 4
  redis:
    pool_size: 5
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "penstock.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path=None, environ=None, flags=None):
    with pytest.raises(Invalid) as caught:
        load_settings(path, environ or {}, flags or {})
    assert caught.value.code == "settings_invalid"
    return caught.value.detail


def test_nothing_given_is_all_defaults():
    loaded = load_settings(None, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == {one.yaml_name for one in setting_entries()}


def test_the_seeds_keys_are_read(file):
    path = file(SEED)
    loaded = load_settings(path, {}, {})
    assert loaded.settings.ml.embed_workers == 3
    assert loaded.settings.http.read_timeout == 20.0
    assert loaded.settings.http.write_timeout == 60.0
    assert loaded.settings.bus.publish_timeout == 0.5
    assert loaded.settings.redis.pool_size == 5
    assert loaded.origins["concurrency.ml.embed_workers"] == str(path)
    assert loaded.origins["concurrency.ml.threads"] == "default"


def test_flag_beats_environment_beats_file_beats_default(file):
    path = file("server: {port: 1, host: a, log_level: error}\n")
    loaded = load_settings(path, {"PENSTOCK_PORT": "2", "PENSTOCK_HOST": "b"}, {"--port": "3"})
    server = loaded.settings.server
    assert (server.port, server.host, server.log_level) == (3, "b", "error")
    origins = [loaded.origins[f"server.{name}"] for name in ("port", "host", "log_level")]
    assert origins == ["--port", "environment PENSTOCK_HOST", str(path)]


def test_empty_environment_strings_count_as_unset():
    loaded = load_settings(None, {"PENSTOCK_PORT": "", "PENSTOCK_HOST": "  "}, {})
    assert loaded.settings.server == Settings().server


def test_unknown_environment_names_are_the_systems():
    assert load_settings(None, {"ML_EMBED_WORKERZ": "x", "PATH": "/bin"}, {}).settings == Settings()


def test_words_are_read_whatever_their_case():
    settings = load_settings(None, {"PENSTOCK_LOG_LEVEL": "INFO", "KAFKA_SASL": "plain"}, {}).settings
    assert (settings.server.log_level, settings.kafka.sasl) == ("info", "PLAIN")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PENSTOCK_PORT", "99999", "'99999'|not 99999"),
        ("PENSTOCK_MAX_BODY", "50XB", "'50XB' is not a size"),
        ("PENSTOCK_RATE_LIMIT", "100/minute", "'100/minute' is not a whole number"),
        ("PENSTOCK_LOG_LEVEL", "trace", "'trace' is none of debug"),
        ("INDEX_MAX_FILE", "2000TB", "not 2000TB"),
        ("DENSE_PATH", "caf\udce9", r"'caf\\udce9' is not UTF-8"),
        ("DENSE_MODEL", "x" * 5000, "xxx… is longer than 4096"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable_and_what_it_was(name, value, said):
    message = refusal(None, {name: value})
    assert message.startswith(f"environment {name}: ")
    assert re.search(said, message)
    assert len(message) < 300


@pytest.mark.parametrize("one", setting_entries(), ids=lambda one: one.yaml_name)
def test_every_setting_is_read_from_its_environment_name_and_its_yaml_name(one, file):
    value = one.spec.choices[0] if one.spec.choices else ("x" if isinstance(one.default, str) else one.default)
    *sections, name = one.yaml_name.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    path = file(f"{text}{'  ' * len(sections)}{name}: {value}\n")
    for loaded, origin in (
        (load_settings(path, {}, {}), str(path)),
        *((load_settings(None, {env: str(value)}, {}), f"environment {env}") for env in one.spec.env_names),
    ):
        assert getattr(getattr(loaded.settings, one.section), one.name) == value
        assert loaded.origins[one.yaml_name] == origin


def test_environment_and_yaml_names_are_distinct():
    assert (
        len({one.spec.env for one in setting_entries()})
        == len({one.yaml_name for one in setting_entries()})
        == len(setting_entries())
    )
    assert set(FLAGS.values()) <= {one.yaml_name for one in setting_entries()}


def test_every_default_is_within_its_own_bounds():
    for one in setting_entries():
        if not isinstance(one.default, str):
            assert one.spec.at_least <= one.default <= one.spec.at_most, one.yaml_name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "concurrency: {ml: {embed_workerz: 3}}",
            "embed_workerz (line 1): is no known setting; did you mean concurrency",
        ),
        ("ml: {embed_workers: 3}", "ml (line 1): is no known setting; did you mean concurrency.ml?"),
        ("embed_workers: 3", "did you mean concurrency.ml.embed_workers?"),
        ("concurency: {}", "did you mean concurrency?"),
        ("xyzzy: 1", "xyzzy (line 1): is no known setting"),
        ("concurrency: {ml: {embed_workers: four}}", "embed_workers (line 1): 'four' is not a whole number"),
        ("concurrency: {ml: {embed_workers: 0}}", "must be between 1 and 1024, not 0"),
        ("concurrency: {ml: {embed_workers: }}", "embed_workers (line 1): has no value"),
        ("concurrency: {ml: {embed_workers: [1, 2]}}", "must be one value"),
        ("concurrency: {ml: 7}", "concurrency.ml (line 1): must hold sections and settings"),
        ("concurrency: {http: {read_timeout: soon}}", "'soon' is not a duration"),
        ("concurrency: {http: {read_timeout: 30h}}", "must be between 1ms and 24h"),
        ("concurrency: {http: {max_body: 10XB}}", "'10XB' is not a size"),
        ("server: {log_level: loud}", "'loud' is none of debug, info, warning, error"),
        ("server: {port: 1}\nserver: {port: 2}", "server (line 2): is written twice, first in line 1"),
        ("server:\n  port: 1\n  port: 2", "server.port (line 3): is written twice, first in line 2"),
        ("- a\n- b", "must hold sections"),
        ("just words", "must hold sections"),
        ("a: [1\nb: 2", "penstock.yaml line 2, column 2:"),
        ("a: 1\n---\nb: 2", "penstock.yaml line 2, column 1:"),
        ("server: {port: !!python/object:os.system 1}", "server.port (line 1): cannot be read"),
        ("server: {port: !!int abc}", "server.port (line 1):"),
        ("[1]: 2", "is no known setting"),
        ("server: &a {host: *a}", "must be one value"),
        (b"server: {host: \xff\xfe}", "is not YAML"),
        ("[" * 5000, "penstock.yaml"),
    ],
)
def test_each_fault_of_a_file_is_named_with_its_place(text, said, file):
    message = refusal(file(text))
    assert said in message
    assert "penstock.yaml" in message


@pytest.mark.parametrize("text", ["", "# nothing\n", "null", "concurrency:\n", "concurrency:\n  ml:\n", "---\n"])
def test_files_and_sections_without_anything_in_them_are_fine(text, file):
    assert load_settings(file(text), {}, {}).settings == Settings()


def test_an_absent_file_is_a_fault(tmp_path):
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "none.yaml")


def test_a_directory_is_no_file(tmp_path):
    assert "cannot be read" in refusal(tmp_path)


def test_a_huge_file_is_not_read(file):
    assert "larger than" in refusal(file("#" * 1_000_001))


def test_all_faults_of_all_sources_come_in_one_message(file):
    path = file(
        "concurrency: {ml: {embed_workers: none, sparse_werkers: 1}, search: {workers: 0}}\nserver: {port: 70000}"
    )
    message = refusal(path, {"INDEX_WORKERS": "many", "ML_RERANK_WORKERS": "9"}, {"--port": "http"})
    for said in (
        f"{path}: concurrency.ml.embed_workers",
        "concurrency.ml.sparse_werkers",
        "concurrency.search.workers",
        "server.port",
        "environment INDEX_WORKERS: 'many' is not a whole number",
        "environment ML_RERANK_WORKERS: 9 is more than concurrency.ml.max_inflight = 8 (default)",
        "--port: 'http' is not a whole number",
    ):
        assert said in message
    assert message.startswith("7 settings cannot be used:\n")
    assert message.count("\n") == 7


def test_a_fault_below_a_good_value_of_higher_rank_is_still_told(file):
    message = refusal(file("server: {port: 99999}"), {}, {"--port": "80"})
    assert "server.port" in message


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ML_EMBED_WORKERS": "9"}, "ML_EMBED_WORKERS: 9 is more than concurrency.ml.max_inflight = 8 (default)"),
        ({"ML_SPARSE_WORKERS": "3", "ML_MAX_INFLIGHT": "2"}, "= 2 (environment ML_MAX_INFLIGHT)"),
        ({"SEARCH_WORKERS": "9", "SEARCH_QUEUE_SIZE": "8"}, "SEARCH_WORKERS: 9 is more than"),
        ({"INDEX_WORKERS": "9", "INDEX_QUEUE_SIZE": "8"}, "INDEX_WORKERS: 9 is more than"),
        ({"INDEX_MAX_FILE": "20MB"}, "INDEX_MAX_FILE: 20MB is more than concurrency.http.max_body = 10MB (default)"),
    ],
)
def test_limits_that_exclude_each_other_are_refused(environ, said):
    assert said in refusal(None, environ)


def test_a_contradiction_in_a_file_names_file_and_key(file):
    path = file("concurrency: {ml: {embed_workers: 9}}")
    assert f"{path}: concurrency.ml.embed_workers: 9 is more than" in refusal(path)


@pytest.mark.parametrize(
    "environ", [{"ML_MAX_INFLIGHT": "1"}, {"SEARCH_QUEUE_SIZE": "1"}, {"PENSTOCK_MAX_BODY": "500KB"}]
)
def test_defaults_never_contradict(environ):
    assert load_settings(None, environ, {}).settings != Settings()


def test_timeouts_may_stand_in_any_order_because_they_nest():
    loaded = load_settings(None, {"SEARCH_TIMEOUT": "10m", "BUS_REQUEST_TIMEOUT": "1s"}, {})
    assert loaded.settings.timeouts.search == 600


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused_with_its_name(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "penstock.yaml"
    path.write_bytes(data)
    try:
        loaded = load_settings(path, {}, {})
    except Invalid as error:
        assert "penstock.yaml" in error.detail  # noqa: PT017 - refusing is one of the two right answers
    else:
        assert dataclasses.is_dataclass(loaded.settings)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"DENSE_KIND": "openai", "DENSE_URL": "http://h"},
            "environment DENSE_KIND: openai needs models.dense.url and models.dense.model (DENSE_URL, DENSE_MODEL)",
        ),
        (
            {"RERANK_KIND": "onnx", "RERANK_MODEL": "a/b"},
            "environment RERANK_KIND: onnx needs models.rerank.path or models.rerank.model and models.rerank.revision",
        ),
        ({"SPARSE_KIND": "tei"}, "environment SPARSE_KIND: tei needs models.sparse.url"),
        ({"DENSE_KIND": "word2vec"}, "'word2vec' is none of builtin, onnx, openai, tei"),
    ],
)
def test_a_kind_of_model_that_lacks_what_it_needs_is_refused(environ, said):
    assert said in refusal(None, environ)


def test_models_have_their_own_sections_in_the_file(file):
    path = file(
        "models:\n  dense: {kind: tei, url: 'http://h', model: m, dim: 384}\n  rerank:\n    kind: onnx\n    path: p\n"
    )
    settings = load_settings(path, {"DENSE_API_KEY": "sk-1"}, {}).settings
    assert (settings.dense_model.kind, settings.dense_model.dim, settings.dense_model.api_key) == ("tei", 384, "sk-1")
    assert (settings.rerank_model.kind, settings.rerank_model.path) == ("onnx", "p")
    assert settings.sparse_model.kind == "bm25"


def test_a_fault_of_a_kind_in_a_file_names_file_and_key(file):
    path = file("models: {sparse: {kind: onnx}}")
    assert f"{path}: models.sparse.kind: onnx needs models.sparse.path or" in refusal(path)


def test_an_unknown_name_of_a_model_s_section_is_refused_with_a_suggestion(file):
    message = refusal(file("models: {dense: {knid: tei}}"))
    assert "models.dense.knid" in message
    assert "did you mean models.dense.kind?" in message


def test_a_secret_is_in_no_fault(file):
    long = "k" * 5000
    assert long not in refusal(None, {"DENSE_API_KEY": long})
    assert "123456" not in refusal(file("models: {dense: {api_key: 123456}}"))
