"""Method A, ``method: {name: sia_moco}``: momentum contrast on two augmented views, then a classifier.

Meng et al., "Contrastive learning with spectrum information augmentation in abnormal sound detection", arXiv
2509.15570. Known of the paper are its abstract, equations 1 and 2, and some settings. The rest follows the methods that
it borrows: BYOL-A (Niizumi et al., arXiv 2103.06695) and MoCo (He et al., CVPR 2020).

Index of the steps, with their symbols, code and settings. Code is ``file.name`` in this folder, ``blocks`` is
:mod:`asd_ray.methods.blocks`, and other folders are in :mod:`asd_ray`. :mod:`asd_ray.config.sia_moco` explains the
settings, keys of ``method``.

================================================== ===================================== ==========================
step                                               code                                  settings
================================================== ===================================== ==========================
Two views, as in BYOL-A
-------------------------------------------------------------------------------------------------------------------
all of them, twice for each clip                   ``augment.TwoViews``
Pre-Norm: (x − μ) / σ                              ``augment.PreNorm``
Eq. 1: x̃ = log((1 − λ) exp(x) + λ exp(x_k))       ``augment.log_mix``                   pretrain.mix_domain
λ ~ U(0, α), x_k a past clip from a FIFO bank      ``augment.LogMixupExp``               pretrain.alpha
                                                                                         pretrain.bank_size
                                                                                         pretrain.band
                                                                                         pretrain.band_from_hz
Random Resize Crop of a canvas                     ``augment.RandomResizeCrop``          pretrain.crop_scale
                                                                                         pretrain.canvas
Post-Norm: (x − μ_B) / σ_B, of both views          ``augment.PostNorm``
Contrast, as in MoCo
-------------------------------------------------------------------------------------------------------------------
a whole step                                       ``pretrain.PretrainStage.forward``
f_q, f_k: ResNet-50                                ``blocks.networks.Network``           pretrain.encoder
                                                                                         pretrain.init_from
projection of their features to D dimensions       ``blocks.heads.projection``           pretrain.projection
                                                                                         pretrain.dim
Eq. 2: θ_k ← m θ_k + (1 − m) θ_q                   ``moco.momentum_update``              pretrain.momentum
m over the steps                                   ``moco.momentum_at``                  pretrain.momentum_schedule
queue of K keys, the negatives                     ``moco.KeyQueue``                     pretrain.queue_size
shuffled batch norm of the keys                    ``moco.begin_keys``                   pretrain.shuffle_bn
InfoNCE: −log(exp(q·k₊/T) / Σ_j exp(q·k_j/T))      ``blocks.losses.info_nce``            pretrain.temperature
Classifier
-------------------------------------------------------------------------------------------------------------------
a whole step                                       ``finetune.FinetuneStage.forward``
from the encoder to the classifier, in four ways   ``finetune.build_trunk``              finetune.coupling
light network: MobileNetV2 or MobileFaceNet        ``blocks.networks.Network``           finetune.network
head: linear                                       ``blocks.heads.LinearHead``           finetune.head
head: s · cos(θ_y + m)                             ``blocks.heads.ArcFaceHead``          finetune.head
                                                                                         finetune.scale
                                                                                         finetune.margin
mixup: λ CE(y_a) + (1 − λ) CE(y_b)                 ``blocks.mixup.mixed_cross_entropy``  finetune.mixup
score: −log softmax of the own class               ``scoring.scores.classification``
================================================== ===================================== ==========================

Both stages use AdamW with warm-up and cosine: ``training.stage_run.StageRun``, with the settings ``lr``, ``epochs``,
``batch_size`` and others. ``method.SiaMoco`` puts the method together.
"""
