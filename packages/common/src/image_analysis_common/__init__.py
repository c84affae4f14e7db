"""What the image-analysis services share: models, errors, Redis keys, task names, settings and logs."""
