"""The method as a library: numpy, scipy, torch, torchaudio, timm, safetensors and nothing else.

Read in this order; importing this package imports none of them:

    types        the frozen domain dataclasses and the errors
    config       one frozen dataclass per part of the method; each default has a unit and a source
    audio        waveform -> log-mel spectrogram; mixing of waveforms
    clip_windows  which clips of a recording are heard with a picture: its own and its neighbours
    image        frame -> network input, augmentation, 2x2 grid of frames, heat-map overlay
    maps         boxes -> mask; localisation maps: threshold, dilate, masked mean
    precision    float32, or bfloat16 in the trunks on a GPU; torch.compile
    backbones    picture and spectrogram trunks, built with timm
    stage_one_net  StageOneNet: both trunks and the space that pictures and sounds share
    stage_two_net  StageTwoNet: stage one with maps of each dictionary entry, gated by what is heard
    losses       matching, classification and category losses as functions of tensors
    dictionary   k-means protocol, object dictionary, cluster -> category assignment
    agreement    clusters against labels: NMI, purity; how evenly entries are used
    kmeans_parts  k-means of points that stay on their workers: only sums, counts and centers travel
    shared_space  what pictures and sounds have in common before anything is learnt
    clustering   what describes an object, and its clusters with all features in one place
    clustering_parts  the same with features that stay on their workers
    pseudo_labels  whichever of the two is asked for: pseudo-labels, the object dictionary
    cluster_count  how many classes there are: how well what pictures and sounds share separates
    optimising   optimizer, learning rate and step of both stages
    stage_one    one epoch of audio-visual matching and of pseudo-label classification
    hearing      noise and silence among the mixtures that stage two practises with
    stage_two    one epoch of practice in hearing mixtures, or of category-distribution matching; inference
    checkpoint   weights + config in one safetensors file; loading runs no code
    metrics      IoU, CIoU, AUC, NSA, their strict variants, bootstrap intervals
    protocols    what a published benchmark is: items, switches, records; what a system says about an item
    binarise     maps -> evaluation grid -> masks: resize kernels, mask rules, order statistics without a sort
    scoring      one frame's maps against its boxes; the baselines beside them
    benchmarks   the items' values of a test set -> estimates, baselines, what had to be left out
    truths       an item's boxes and masks -> targets on the evaluation grid, with every evaluator's switches
    canvas       one item's maps, resized and binarised when asked for, compared with targets
    pairing      which map is compared with which target: by class, Hungarian, the only one
    protocol_scores     items + predictions + switches -> one value a metric and item
    protocol_estimates  those values -> the benchmark's metrics with intervals over videos
    extended     sets with negatives: confidences, AP, max-F1, by SLAVC's rule and by the textbook's
    own_protocols  a data set of one's own as benchmarks, scored under the published evaluators' rules
    negatives    pictures with silence, noise or a sound of something else: what the network then says
    operating    from which score on something sounds, chosen on validation; rates of detection and of false alarms
    trivial      predictors that neither look nor listen, and the ceiling of a perfect one
    localizer    a registered model in one call: frames and sounds -> maps per class
    orchestra    the generated data set: what stands, moves and sounds in a video, from one seed
    instruments  the 11 classes as drawings
    scenery      backgrounds and clutter
    shapes       polygons and palettes
    phrases      the notes that an instrument plays, and what a room does to them
"""

__version__ = "0.1.0"
