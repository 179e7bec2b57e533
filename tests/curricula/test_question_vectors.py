"""Question vectors from each source."""

import numpy as np
import pytest

from kpod_lightning.config import load_config
from kpod_lightning.curricula import measure
from kpod_lightning.curricula.question_vectors import question_vectors
from kpod_lightning.curricula.schedule import cluster_questions
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.student import load_student

QUESTIONS = ["Kim has 3 red apples.", "A red apple costs 3 euros.", "Trains leave at noon.", "Many trains leave late."]
GLOVE = "kim 1 0 0\nred 1 0 0\napple 1 0 0\napples 1 0.1 0\ntrains 0 0 2\nleave 0 0 1\nzebra 9 9 9\n"


@pytest.mark.parametrize("source", ["student", "tfidf", "glove", str(ASSETS / "tiny-llama")])
def test_every_question_has_a_vector_of_length_one(source, student, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    vectors = question_vectors(QUESTIONS, source, student=student, glove_path=path)
    assert vectors.shape[0] == 4 and vectors.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


def test_glove_vectors_are_means_over_known_words_and_put_like_questions_together(student, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    vectors = question_vectors([*QUESTIONS, "Nobody knows."], "glove", student=student, glove_path=path)
    np.testing.assert_allclose(vectors[0], np.array([3, 0.1, 0]) / np.hypot(3, 0.1))
    np.testing.assert_array_equal(vectors[4], 0)
    one, two, three, four = cluster_questions(vectors[:4], 2)
    assert one == two != three == four


@pytest.mark.parametrize(
    ("text", "words"), [("kim 1 0\nred 1 0 0\n", "line 2"), ("zebra 1 0\n", "no word"), ("kim a b\n", "could not")]
)
def test_a_glove_file_that_does_not_serve_is_named(text, words, student, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        question_vectors(QUESTIONS, "glove", student=student, glove_path=path)
    assert str(path) in str(caught.value)


def test_an_encoder_that_cannot_be_had_is_named(student, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"schedule\.vectors"):
        question_vectors(QUESTIONS, str(tmp_path / "nowhere"), student=student)


def test_questions_of_a_large_set_join_the_cluster_of_those_like_them(monkeypatch):
    monkeypatch.setattr(measure, "NUM_CLUSTERED", 40)
    kinds = ("How many apples are left in the basket?", "Where would a teacher keep chalk?")
    questions = [kinds[i % 2] + " Please" * (i % 3) for i in range(300)]
    config = load_config(None, ["schedule.num_clusters=2"])
    labels = measure.clusters_of(config, load_student("tiny-llama"), questions, len(questions))
    assert len(labels) == 300 and set(labels[::2]).isdisjoint(labels[1::2])
    assert len(set(labels[::2])) == len(set(labels[1::2])) == 1
