"""Trains the models that dtrnet serves. Read models first: shape, rows, selection, routers, attention, layers, model."""
