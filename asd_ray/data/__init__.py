"""Recordings: layouts, files, checks, public data sets, synthetic machines.

* ``clips``: a clip's identity (machine, ID, split, label), classes, select and holdout splits
* ``layouts``: find the clips of a data set: DCASE 2020, DCASE 2022, any folder
* ``machine_folders``: what the DCASE layouts share
* ``side_files``: CSV files of labels, attributes and faults
* ``audio``: read headers and samples
* ``check``: the report of ``data check``
* ``problems``: what can be wrong with a clip or a data set
* ``public``: download DCASE sets
* ``synthetic``: make recordings of simulated machines
"""
