"""Synthetic machines: physical models of machines and faults, and recordings of them.

* ``recordings``: plan a data set, render its recordings, write its files
* ``machines``: the machine types
* ``rotating``: fan, pump, gearbox, toy car
* ``strokes``: slide rail and valve
* ``mechanics``: base classes of machines and faults, shared faults
* ``acoustics``: shafts, tones, impacts, noise, resonances, rooms, the factory hall
"""
