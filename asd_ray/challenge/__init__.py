"""The DCASE challenge's files and metrics.

* ``submission``: read and write score and decision files
* ``official``: evaluate score files by the official metrics
"""
