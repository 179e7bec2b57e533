"""Evaluation: generate, grade, and the statistics of accuracies."""
