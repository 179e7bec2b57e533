"""Curricula: what is input and what is asked at which stage; KPOD's, Eqs. (8)-(13)."""
