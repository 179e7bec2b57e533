"""Distributed: ranks, sharding, checkpoints, preemption, predictions of all ranks, the trainer and the one console."""
