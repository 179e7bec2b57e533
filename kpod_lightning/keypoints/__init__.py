"""Keypoints: token weights, Eqs. (2)-(7), how they are learned, stored and shown."""
