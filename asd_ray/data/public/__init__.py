"""Public data sets.

* ``registry``: addresses, sizes and checksums of the published files
* ``download``: fetch, verify and unpack a set
* ``transfer``: download one file over HTTP, in parallel and resumable
* ``unpack``: unpack an untrusted zip file safely
* ``ground_truth``: attach the published labels of an evaluation set
"""
