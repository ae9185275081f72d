"""Training: the loop, one run of a method, and its workers.

* ``train_and_score``: one run on one worker, from building the method to the saved detector
* ``loop``: train all stages of a method, with resume
* ``stage_run``: train one stage: optimiser, schedule, epochs
* ``stage_cache``: trained stages that trials share
* ``checkpoints``: a run's state on disk
* ``ray_worker``: the same run on several workers, through Ray Train
"""
