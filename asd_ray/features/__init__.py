"""Features: Log-Mel spectrograms and waveforms of clips, built once and read by every trial.

* ``log_mel``, ``log_mel_cpu``: the transform, and its fast equal on a CPU
* ``store``, ``storage``: parquet shards and manifests, in a folder or an object store
* ``plan``, ``extract``, ``build``: which shards are needed, one shard, the whole store with Ray Data
* ``read``: a study's features for its trials, cached in memory or streamed
* ``batches``, ``stream``: batches for training and scoring
"""
