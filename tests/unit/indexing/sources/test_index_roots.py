"""Which directories a server may index by itself."""

from pathlib import Path

import pytest

from penstock.indexing.sources.index_roots import IndexRoots
from penstock.kernel.errors import Invalid


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with one that may be indexed, one that may not, and a data directory."""
    for name in ("srv/tree/deep", "srv-2/tree", "secret", "srv/data/collections"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "srv" / "file").write_text("text")
    (tmp_path / "srv" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "srv" / "in").symlink_to(tmp_path / "srv" / "tree")
    (tmp_path / "srv" / "loop").symlink_to(tmp_path / "srv" / "pool")
    (tmp_path / "srv" / "pool").symlink_to(tmp_path / "srv" / "loop")
    (tmp_path / "named").symlink_to(tmp_path / "srv")
    return tmp_path


def roots(place: Path, setting: str = "{0}/srv") -> IndexRoots:
    return IndexRoots(setting.format(place), place / "srv" / "data")


@pytest.mark.parametrize("root", ["srv", "srv/tree", "srv/tree/deep", "srv/in", "srv/tree/../tree/", "named/tree"])
def test_directories_below_are_taken_without_links(place, root):
    assert roots(place).check(f"{place}/{root}") == (place / root).resolve()


@pytest.mark.parametrize(
    "root",
    [
        "{0}",
        "{0}/secret",
        "{0}/srv-2/tree",
        "{0}/srv/out",
        "{0}/srv/../secret",
        "{0}/srv/loop",
        "{0}/srv/data",
        "{0}/srv/data/collections",
        "{0}/absent",
        "srv/tree",
        ".",
        "",
        "~",
        "/",
        "/proc/self/root/etc",
        "{0}/srv/tree\0",
        "{0}/srv/" + "a" * 5000,
        "{0}/srv/" + "a/" * 2500,
        "\ud800",
    ],
)
def test_others_are_refused_alike_whether_they_exist(place, root):
    with pytest.raises(Invalid) as raised:
        roots(place).check(root.format(place))
    assert (raised.value.code, raised.value.field) in {("root_not_allowed", "root"), ("root_not_found", "root")}
    assert raised.value.code == "root_not_allowed" or len(root) > 5000
    assert len(raised.value.detail) < 600


@pytest.mark.parametrize("root", ["srv/absent", "srv/file", "srv/file/x"])
def test_what_is_no_directory_is_told(place, root):
    with pytest.raises(Invalid) as raised:
        roots(place).check(f"{place}/{root}")
    assert raised.value.code == "root_not_found"


def test_several_are_named_with_commas_and_may_be_links_or_absent(place):
    several = roots(place, "{0}/named , {0}/unmounted,")
    assert several.enabled
    assert several.check(f"{place}/srv/tree") == place / "srv" / "tree"
    (place / "unmounted" / "x").mkdir(parents=True)
    assert several.check(f"{place}/unmounted/x") == place / "unmounted" / "x"


def test_the_whole_machine_is_too_broad_even_if_it_is_named(place):
    assert roots(place, "/").check(str(place / "secret")) == place / "secret"
    with pytest.raises(Invalid, match="broad"):
        roots(place, "/").check("/")


def test_without_any_all_is_refused_and_how_to_allow_it_is_told(place):
    assert not roots(place, "").enabled
    with pytest.raises(Invalid, match="INDEX_ROOTS names"):
        roots(place, "").check(f"{place}/srv/tree")


@pytest.mark.parametrize("setting", ["srv", "~/src", "/srv,src"])
def test_a_setting_that_is_no_absolute_path_is_refused_at_the_start(place, setting):
    with pytest.raises(Invalid) as raised:
        roots(place, setting)
    assert raised.value.field == "concurrency.index.roots"
