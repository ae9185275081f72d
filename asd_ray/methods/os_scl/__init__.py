"""Method B, ``method: {name: os_scl}``: one-stage supervised contrastive learning.

Huang et al., "Noise supervised contrastive learning and feature-perturbed for anomalous sound detection", ICASSP 2025,
arXiv 2509.13853 (OS-SCL), and its published code. STgram-MFN and Noisy-ArcMix are settings of it.

Index of the steps, with their symbols, code and settings. Code is ``file.name`` in this folder, ``blocks`` is
:mod:`asd_ray.methods.blocks`, and other folders are in :mod:`asd_ray`. :mod:`asd_ray.config.os_scl` explains the
settings, keys of ``method``.

=================================================== ======================================== ======================
step                                                code                                     settings
=================================================== ======================================== ======================
Inputs
-------------------------------------------------------------------------------------------------------------------
Log-Mel of 128 × 313, in dB                         ``features.log_mel.LogMel``
λ ~ Beta(a, a), one for a batch                     ``blocks.mixup.draw_mixup``              train.mixup
mixup: x̃ = λ x + (1 − λ) x_π, of each input        ``method.mixed``
Tgram                                               ``gram.Tgram``                           inputs
TFgram                                              ``gram.TFgram``                          inputs
Network
-------------------------------------------------------------------------------------------------------------------
from the input channels to the unit vector z        ``method.OsSclNetwork``
MobileFaceNet                                       ``blocks.mobilefacenet.MobileFaceNet``
feature-perturbation head: 128 → R → 128            ``method.perturbation_head``             perturbation
                                                                                             perturbation_dim
ArcFace: s · cos(θ_y + m)                           ``blocks.heads.ArcFaceHead``             scale
                                                                                             margin
Losses
-------------------------------------------------------------------------------------------------------------------
L = L_cls + L_sup, a whole step                     ``method.OsSclStage.forward``            train.contrast
L_cls = λ CE(y_a) + (1 − λ) CE(y_b)                 ``blocks.mixup.mixed_cross_entropy``
L_sup with the labels y_a of mixed clips, T, T_base ``blocks.losses.supervised_contrastive`` train.temperature
                                                                                             train.base_temperature
L_sup over the clips of all workers                 ``method.OsSclStage._contrast``
Training
-------------------------------------------------------------------------------------------------------------------
θ_ema ← β θ_ema + (1 − β) θ                         ``method.update_average``                train.ema
                                                                                             train.student_decay
AdamW, cosine by epoch                              ``training.stage_run.StageRun``          train.lr
                                                                                             train.epochs
epoch of the lowest validation loss                 ``method.OsSclStage.validation_loss``    train.validation
Score
-------------------------------------------------------------------------------------------------------------------
A(x) = −log softmax(ArcFace(z, y))[y]               ``method.OsScl.own_score``
=================================================== ======================================== ======================

``method.OsScl`` puts the method together.
"""
