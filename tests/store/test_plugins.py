import subprocess
import sys
from pathlib import Path

import pytest

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.plugins import find, load

GROUP = "kpod_lightning.fruits"
SHIPPED = {"quotient": "fractions:Fraction", "path": "os.path"}


def install(folder: Path, package: str, points: dict[str, str], group: str = GROUP) -> None:
    """What pip leaves of a package that has entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_shipped_names_come_first_then_those_of_plugins(site):
    install(site, "orchard", {"pear": "orchard_pear:Pear", "apple": "orchard_apple"})
    install(site, "elsewhere", {"stone": "elsewhere"}, group="kpod_lightning.stones")
    assert find(GROUP, SHIPPED) == ["quotient", "path", "apple", "pear"]


def test_a_name_is_an_attribute_or_a_module(site):
    from fractions import Fraction

    (site / "orchard_fruits.py").write_text("class Pear:\n    pass\n")
    install(site, "orchard", {"pear": "orchard_fruits:Pear", "all": "orchard_fruits"})
    assert load(GROUP, "quotient", SHIPPED) is Fraction
    assert load(GROUP, "path", SHIPPED).join("a", "b") == str(Path("a") / "b")
    assert load(GROUP, "all", SHIPPED).Pear is load(GROUP, "pear", SHIPPED)


def test_an_unknown_name_lists_what_there_is(site):
    install(site, "orchard", {"pear": "orchard_pear"})
    with pytest.raises(InputError, match=r"^plum is none of quotient, path, pear; .* group kpod_lightning\.fruits$"):
        load(GROUP, "plum", SHIPPED)


@pytest.mark.parametrize("use", [find, lambda group, shipped: load(group, "path", shipped)])
def test_a_plugin_cannot_take_a_shipped_name(site, use):
    install(site, "orchard", {"path": "orchard_path"})
    with pytest.raises(InputError, match=r"path .*the package orchard gives a name that kpod_lightning has already"):
        use(GROUP, SHIPPED)


def test_two_plugins_cannot_take_one_name(site):
    install(site, "orchard", {"pear": "orchard_pear"})
    install(site, "plantation", {"pear": "plantation_pear"})
    with pytest.raises(InputError, match=r"pear of the group .* that the package (orchard|plantation) has already"):
        find(GROUP, SHIPPED)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('no\\n  licence')", "RuntimeError: no licence"),
        ("", "AttributeError: "),
    ],
)
def test_a_plugin_that_does_not_import_is_one_line_with_its_package(site, code, why):
    name = f"orchard_broken_{abs(hash(code))}"
    (site / f"{name}.py").write_text(code)
    install(site, "orchard", {"pear": f"{name}:Pear"})
    with pytest.raises(InputError) as caught:
        load(GROUP, "pear", SHIPPED)
    assert str(caught.value).startswith(f"pear: the package orchard does not import ({why}")
    assert "\n" not in str(caught.value)


def test_an_input_error_of_a_plugin_is_left_as_it_is(site):
    (site / "orchard_strict.py").write_text(
        "from kpod_lightning.store.errors import InputError\nraise InputError('orchard: set ORCHARD_KEY')\n"
    )
    install(site, "orchard", {"pear": "orchard_strict"})
    with pytest.raises(InputError, match=r"^orchard: set ORCHARD_KEY$"):
        load(GROUP, "pear", SHIPPED)


def test_nothing_is_imported_before_it_is_asked_for():
    code = (
        "import sys; from kpod_lightning.store.plugins import find, load; names = {'a': 'colorsys', 'b': 'wave'}; "
        "loaded = lambda: sorted({'colorsys', 'wave'} & sys.modules.keys()); "
        "find('g', names); print(loaded()); load('g', 'a', names); print(loaded())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['colorsys']"]
