"""Question vectors, whose K-means clusters are the C_k of Eq. (12)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kpod_lightning.data.tokens import text_ids
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student

NUM_COMPONENTS = 50
"""Dimensions that the singular value decomposition of the TF-IDF matrix keeps."""


def question_vectors(
    questions: Sequence[str], source: str, *, student: Student, glove_path: Path | None = None, seed: int = 0
) -> np.ndarray:
    """One vector a question, of norm 1; of norm 0 if no word of the question has a vector.

    Args:
        questions: texts.
        source: ``student``: mean of the student's input embeddings; ``glove``: mean of the words' vectors in
            ``glove_path``, the paper's; ``tfidf``: TF-IDF and a truncated singular value decomposition; else an
            encoder model, hub id or folder, whose last hidden states are averaged.

    Returns:
        [N, d] float64.

    Raises:
        InputError: a file or model cannot be had, or knows no word of any question.
    """
    if source == "student":
        vectors = _student_vectors(questions, student)
    elif source == "glove":
        assert glove_path is not None
        vectors = _glove_vectors(questions, glove_path)
    elif source == "tfidf":
        vectors = _tfidf_vectors(questions, seed)
    else:
        vectors = _encoder_vectors(questions, source)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.any():
        raise InputError(f"schedule.vectors={source}: no word of any question has a vector")
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _student_vectors(questions: Sequence[str], student: Student) -> np.ndarray:
    embeddings = student.model.get_input_embeddings().weight.detach().double().cpu()
    rows = [text_ids(text, student.tokenizer) for text in questions]
    return np.stack([embeddings[row].mean(0).numpy() if row else np.zeros(embeddings.shape[1]) for row in rows])


def _words(text: str) -> list[str]:
    from sklearn.feature_extraction.text import CountVectorizer  # slow import

    return list(CountVectorizer(token_pattern=r"\w+").build_analyzer()(text))


def _glove_vectors(questions: Sequence[str], path: Path) -> np.ndarray:
    words = [_words(text) for text in questions]
    wanted = {word for row in words for word in row}
    found: dict[str, np.ndarray] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if word in wanted:
                    found[word] = np.array(values, dtype=np.float64)
                    if len(found[word]) != len(next(iter(found.values()))):
                        raise InputError(f"{path}, line {number}: {len(values)} numbers, others have more or fewer")
    except (OSError, ValueError) as error:
        raise InputError(f"schedule.glove_path={path}: {error}") from error
    if not found:
        raise InputError(f"schedule.glove_path={path}: it has no word of any question")
    nothing = np.zeros(len(next(iter(found.values()))))
    known = [[found[word] for word in row if word in found] for row in words]
    return np.stack([np.mean(row, axis=0) if row else nothing for row in known])


def _tfidf_vectors(questions: Sequence[str], seed: int) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD  # slow imports
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform(questions)
    num_components = min(NUM_COMPONENTS, counts.shape[1] - 1, counts.shape[0] - 1)
    if num_components < 1:
        return np.asarray(counts.todense(), dtype=np.float64)
    return np.asarray(TruncatedSVD(num_components, random_state=seed).fit_transform(counts), dtype=np.float64)


def _encoder_vectors(questions: Sequence[str], source: str) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer

    try:
        model, tokenizer = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"schedule.vectors={source}: cannot load it ({reason}); give a folder, or take student or tfidf"
        ) from error
    found = []
    model.eval()
    with torch.no_grad():
        for text in questions:
            encoded = tokenizer(
                text, return_tensors="pt", truncation=True, return_token_type_ids=False, split_special_tokens=True
            )
            found.append(model(**encoded).last_hidden_state[0].mean(0).double().numpy())
    return np.stack(found)
