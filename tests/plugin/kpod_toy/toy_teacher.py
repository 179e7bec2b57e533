"""A teacher that knows every answer and asks nobody."""

from decimal import Decimal

from kpod_lightning.teachers.requests import Reply
from kpod_lightning.teachers.writing import Work


def write(work: Work) -> None:
    while (request := work.take()) is not None:
        text = f"We count to {request.problem.answer}. The answer is {request.problem.answer}."
        work.add(request, Reply(text=text), [], Decimal(0)).result()
