"""Prompts of others: what is beyond a limit or not theirs is one line, at once."""

import time
from pathlib import Path

import pytest
from teachers.builders import HENS, teacher_of

from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.prompts import load_prompt

NS = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}"
EVIL = {
    "object": "{{ question.__class__.__mro__ }}",
    "times": "{{ 'a' * 10**9 }}",
    "power": "{{ 9**999999999 }}",
    "product": NS + "{% set ns.s = 7 if i == 0 else ns.s * ns.s %}{% endfor %}",
    "joined": NS + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "added": NS + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "captured": NS + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "center": "{{ 'a'|center(10**9) }}",
    "method": "{{ 'a'.ljust(10**9) }}",
    "format": "{{ '%1000000000d' % 1 }}",
    "replace": "{% for i in range(9) %}{{ ('a' * 99999).replace('a', 'b' * 99999) }}{% endfor %}",
    "macro": "{% macro m(n) %}{{ m(n - 1) + m(n - 1) if n else 'a' }}{% endmacro %}{{ m(60) }}",
    "include": "{% include '/etc/passwd' %}",
}


@pytest.mark.parametrize("name", EVIL)
def test_a_prompt_that_goes_beyond_a_limit_is_one_line_with_its_own_at_once(tmp_path: Path, name: str):
    path, began = tmp_path / "p.jinja", time.monotonic()
    path.write_text("\n{% block user %}" + EVIL[name] + "{{ question }}{% endblock %}")
    with pytest.raises(InputError, match=r"p\.jinja, line 2, block user: ") as caught:
        load_prompt(teacher_of(prompt=str(path)), "number").messages(HENS)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5


def test_what_prompts_usually_do_is_within_the_limits(tmp_path: Path):
    path = tmp_path / "p.jinja"
    path.write_text(
        "{% macro said(x) %}<{{ x|upper }}>{% endmacro %}{% block user %}"
        "{% for i in range(3) %}{{ loop.index ~ ':' ~ 2 * i }} {% endfor %}{{ ('a' * 3).replace('a', 'bc') }} "
        "{{ ['x', 'y']|join(', ') }} {{ question|replace('Ann', 'Bea')|indent(2) }} {{ '%03d' % 7 }}{% endblock %}"
    )
    asked = load_prompt(teacher_of(prompt=str(path)), "number").messages(HENS)
    question = HENS.question.replace("Ann", "Bea")
    assert asked == (("user", f"1:0 2:2 3:4 bcbcbc x, y {question} 007"),)
