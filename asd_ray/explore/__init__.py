"""Look at clips and data sets.

* ``show``: the pictures and tables of ``features show``
* ``pictures``: draw spectrograms, augmented views and mean spectra
* ``views``: augmented views of clips, as pre-training makes them
* ``spectra``: time-averaged spectra from recordings or a feature store
* ``bands``: AUC of eight frequency bands
* ``mel_axis``: positions and bands on the mel axis
* ``captions``: a recording's machine, ID, label and fault from its path
"""
