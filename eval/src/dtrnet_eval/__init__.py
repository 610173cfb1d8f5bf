"""Evaluation of models served by dtrnet. Speaks HTTP only; see the README of this folder."""

__version__ = "0.2.0"
