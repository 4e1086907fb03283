"""The steps in order; each opens its parents, calls `dsol_core` and publishes one artifact.

    make_videos        generator, or photographs + recordings -> MP4 files + annotations in the published format
    ingest_videos      lists or folders of videos -> videos.parquet; missing and broken ones counted, not hidden
    index_clips        videos + annotations -> clips.parquet: one row a second, boxes normalised
    mix_scenes         clips -> scenes.parquet: recipes of cocktail-party scenes, no media
    write_shards       clips + scenes -> WebDataset shards (*.tar) + shards.json; each video decoded once
    train_stage_one    shards -> model.safetensors, history.parquet: audio-visual matching and clustering
    build_dictionary   shards + stage one -> dictionary.safetensors: the object dictionary
    train_stage_two    shards + stage one + dictionary -> model.safetensors, history.parquet
    predict_maps       shards + both stages + dictionary -> predictions.parquet: one map per entry and frame
    evaluate           predictions + annotations -> metrics.json, report.html
    register_model     stage two + dictionary + metrics -> a version in the MLflow registry

`adapters/` holds what the steps share, and each outside library's owner. Beside the steps stand tools that the command
line calls:

    compare_runs       reports of several recipes and seeds -> one table with paired differences
    localize_video     a video + a registered model -> heat-maps drawn over it, localizations.parquet
    evaluate_benchmark a published benchmark + a model, or a file of maps -> scores.json, missing.parquet
    doctor             what works on this machine, what is missing, how to mend it
"""
