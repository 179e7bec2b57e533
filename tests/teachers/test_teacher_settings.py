"""Settings of a teacher: what is refused, and the short names of the command line."""

import pytest

from kpod_lightning.config import TeacherConfig, load_config
from kpod_lightning.store.errors import InputError


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("teacher=gpt-4.1", "teacher=gpt-4.1 is none of openai:..."),
        ("teacher=openai:", "teacher=openai: is none of openai:..."),
        ("teacher=human:anna", "teacher=human:anna is none of openai:..."),
        ("samples=0", "teacher.samples is"),
        ("budget=0", "teacher.budget is"),
        ("budget=.nan", "teacher.budget is"),
        ("budget=little", "teacher.budget"),
        ("teacher.stop_at=0", "teacher.stop_at is"),
        ("teacher.stop_at_total=0", "teacher.stop_at_total is"),
        ("teacher.num_examples=0", "teacher.num_examples is"),
        ("teacher.max_tokens=0", "teacher.max_tokens is"),
        ("teacher.concurrency=0", "teacher.concurrency is"),
        ("teacher.max_attempts=0", "teacher.max_attempts is"),
        ("teacher.batch_size=0", "teacher.batch_size is"),
        ("teacher.timeout=0", "teacher.timeout is"),
        ("teacher.poll=-1", "teacher.poll is"),
        ("teacher.temperature=-0.1", "teacher.temperature is"),
        ("teacher.thinking=aloud", "teacher.thinking=aloud is none of keep, drop, distil"),
        ("teacher.limit_field=most_tokens", "teacher.limit_field=most_tokens is none of"),
        ("teacher.prices.input=1", "teacher.prices has input and output"),
        ("teacher.prices={input: 1, output: 2, images: 3}", "teacher.prices has input and output"),
        ("teacher.prices={input: 1, output: -2}", "teacher.prices.output is"),
        ("teacher.colour=red", "teacher.colour"),
    ],
)
def test_a_setting_of_a_teacher_that_cannot_be_is_refused_by_its_key_in_one_line(override, named):
    with pytest.raises(InputError) as caught:
        load_config(None, [override])
    # The command is quoted in front of what is wrong with it.
    assert named in str(caught.value).split(": key ")[-1] and "\n" not in str(caught.value)


def test_several_greedy_samples_are_refused_because_they_are_one():
    with pytest.raises(InputError, match="temperature"):
        load_config(None, ["samples=2", "teacher.temperature=0"])
    assert load_config(None, ["teacher.temperature=0"]).teacher.samples == 1
    assert load_config(None, ["samples=2", "teacher.temperature=null"]).teacher.temperature is None


def test_short_names_on_the_command_line_mean_the_long_ones():
    short = load_config(None, ["teacher=openai:gpt-4.1-mini", "samples=3", "budget=2.5", "teacher.top_p=0.9"])
    long = ["teacher.name=openai:gpt-4.1-mini", "teacher.samples=3", "teacher.budget=2.5", "teacher.top_p=0.9"]
    assert short == load_config(None, long)
    assert short.teacher == TeacherConfig(name="openai:gpt-4.1-mini", samples=3, budget=2.5, top_p=0.9)
