"""The official baseline, ``method: {name: autoencoder}``: an autoencoder of stacked frames for each machine type.

DCASE 2020 Task 2 (y-kawagu/dcase2020_task2_baseline), and the selective Mahalanobis score that the baseline has from
2023 on (Harada et al., arXiv 2303.00455; nttcslab/dcase2023_task2_baseline_ae).

Index of the steps, with their code (``file.name`` in this folder) and settings (keys of ``method``, explained in
:mod:`asd_ray.config.autoencoder`).

======================================================= ==================================== ============
step                                                    code                                 settings
======================================================= ==================================== ============
x: P = 5 consecutive frames as one vector               ``network.context_vectors``
r(x): layers of 640, 4 × 128, 8, 4 × 128, 640           ``network.Autoencoder``
loss: mean of (x − r(x))²                               ``method.AutoencoderStage.forward``  train.lr
                                                                                             train.epochs
``mse``: mean of (x − r(x))² over a clip                ``method.AutoencoderMethod._score``  score
Σ of the errors e = x − r(x), source and target         ``method.AutoencoderMethod.finish``
``mahalanobis``: smaller of both means of eᵀ Σ⁻¹ e      ``method.AutoencoderMethod._score``  score
``mahalanobis_of_mean``: smaller of both ēᵀ Σ⁻¹ ē       ``method.AutoencoderMethod._score``  score
======================================================= ==================================== ============
"""
